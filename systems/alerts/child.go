package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"sync"
	"time"
)

// A child is a process that runs until the context of startChild is done.
type child struct {
	name  string
	ended chan struct{}
	err   error // set before ended is closed

	mu   sync.Mutex // guards the fields below
	text bytes.Buffer
}

func startChild(ctx context.Context, name, command string, args ...string) (*child, error) {
	c := &child{name: name, ended: make(chan struct{})}
	cmd := exec.CommandContext(ctx, command, args...)
	cmd.Stdout, cmd.Stderr = c, c
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(c.ended)
		c.err = cmd.Wait()
	}()
	return c, nil
}

// Write stores what the process prints.
func (c *child) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.Write(b)
}

func (c *child) output() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

// await waits until the process has printed text that matches pattern. It returns
// the part that matches the parentheses.
func (c *child) await(ctx context.Context, pattern string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		if found := regexp.MustCompile(pattern).FindStringSubmatch(c.output()); found != nil {
			return found[1], nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("%s does not print %q: %w\n%s", c.name, pattern, ctx.Err(), c.output())
		case <-c.ended:
			return "", fmt.Errorf("%s has ended: %w\n%s", c.name, c.err, c.output())
		case <-time.After(10 * time.Millisecond):
		}
	}
}
