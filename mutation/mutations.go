package main

import (
	"fmt"
	"strings"
)

// A mutation breaks the library in one place. It is written by us or generated.
// We have a list for each file of the library, in a file of the same name.
type mutation struct {
	id   int    // from 1; it chooses the mutation in a library that has many
	file string // of the library; all sets it
	name string // what is broken

	old, new string // old occurs just once in file
	at       int    // if not 0, the place of old

	alone      bool   // built by itself, because stack depth or the compiler's knowledge matters
	killer     string // a test that fails, tried first
	equivalent string // why no test can fail

	edits        []edit // of a generated mutation, in place of old and new, unless it is built by itself
	line, column int
}

// all returns the mutations of all files.
func all() []mutation {
	var ms []mutation
	for _, f := range []struct {
		name string
		list []mutation
	}{
		{"bind.go", bind},
		{"closer.go", closer},
		{"write.go", write},
		{"read.go", read},
		{"limits.go", limits},
		{"groupstats.go", groupstats},
		{"handling.go", handling},
		{"groupshutdown.go", groupshutdown},
		{"do.go", do},
		{"refuse.go", refuse},
		{"listener.go", listeners},
		{"owned.go", ownedTransports},
		{"registry.go", registry},
		{"open.go", open},
		{"reclaim.go", reclaim},
		{"shortage.go", shortage},
		{"stall.go", stall},
		{"peek.go", peek},
		{"collect.go", collect},
		{"timeouts.go", timeouts},
		{"logs.go", logs},
		{"stream.go", stream},
		{"unistream.go", unistream},
		{"admission.go", admission},
		{"conn.go", conn},
		{"dial.go", dial},
		{"group.go", group},
		{"guard.go", guard},
		{"serve.go", serve},
		{"shutdown.go", shutdown},
		{"quiet.go", quiet},
		{"netconn.go", netconn},
		{"netlistener.go", netListeners},
		{"stats.go", stats},
	} {
		for _, m := range f.list {
			m.file = f.name
			ms = append(ms, m)
		}
	}
	return ms
}

func (m mutation) String() string {
	if m.edits != nil {
		return fmt.Sprintf("%s:%d:%d: %s", m.file, m.line, m.column, m.name)
	}
	return m.file + ": " + m.name
}

// apply returns the file with the mutation.
func (m mutation) apply(source string) (string, error) {
	if m.at > 0 {
		return source[:m.at] + m.new + source[m.at+len(m.old):], nil
	}
	if n := strings.Count(source, m.old); n != 1 {
		return "", fmt.Errorf("%v: the old text occurs %d times", m, n)
	}
	mutated := strings.Replace(source, m.old, m.new, 1)
	if mutated == source {
		return "", fmt.Errorf("%v: nothing changes", m)
	}
	return mutated, nil
}

// number sets the id of each mutation.
func number(ms []mutation) {
	for i := range ms {
		ms[i].id = i + 1
	}
}
