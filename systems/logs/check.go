package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
)

// A ledger counts how often each batch was acknowledged.
type ledger struct {
	mu    sync.Mutex // guards the field below
	acked map[batchKey]int
}

func (l *ledger) add(k batchKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.acked == nil {
		l.acked = make(map[batchKey]int)
	}
	l.acked[k]++
}

// of returns how many of a producer's batches were acknowledged.
func (l *ledger) of(producer int) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range l.acked {
		if k.producer == producer {
			n++
		}
	}
	return n
}

// checkFile compares the file with the acknowledgements. Each line of an
// acknowledged batch must be in the file once, and no line may be torn or
// changed. Each batch in the file must have been acknowledged, except those of
// the producer that was killed.
func (y *site) checkFile() {
	found, lines, err := readFile(io.NewSectionReader(y.file, 0, 1<<62))
	if err != nil {
		y.add("file", err)
		return
	}
	y.told.mu.Lock()
	defer y.told.mu.Unlock()
	missing, twice, untold, untoldKilled := 0, 0, 0, 0
	for k, times := range y.told.acked {
		if times > 1 {
			twice++
		}
		missing += batchLines - found[k].count()
	}
	for k := range found {
		switch {
		case y.told.acked[k] > 0:
		case k.producer == y.killed:
			untoldKilled++
		default:
			untold++
		}
	}
	y.Check(missing == 0, "what was acknowledged is in the file", "%d lines of %d batches; %d are missing", lines, len(y.told.acked), missing)
	y.Check(twice == 0 && untold == 0, "what is in the file was acknowledged", "%d batches were not, %d twice, %d just before kill -9", untold, twice, untoldKilled)
}

// A set says which lines of a batch are in the file.
type set struct{ has [batchLines]bool }

func (s *set) count() (n int) {
	if s == nil {
		return 0
	}
	for _, has := range s.has {
		if has {
			n++
		}
	}
	return n
}

// readFile finds the lines of each batch. It returns an error if a line is not
// as it was sent, or is there twice.
func readFile(r io.Reader) (found map[batchKey]*set, lines int, err error) {
	found = make(map[batchKey]*set)
	in := bufio.NewReaderSize(r, 1<<20)
	var want []byte
	var rec record
	for {
		line, err := in.ReadSlice('\n')
		if err == io.EOF && len(line) == 0 {
			return found, lines, nil
		}
		lines++
		if err != nil {
			return found, lines, fmt.Errorf("line %d is torn: %w", lines, err)
		}
		if err := rec.parse(line); err != nil {
			return found, lines, fmt.Errorf("line %d: %w", lines, err)
		}
		want = append(appendLine(want[:0], rec.batchKey, rec.line), '\n')
		if !bytes.Equal(line, want) || rec.line < 0 || rec.line >= batchLines {
			return found, lines, fmt.Errorf("line %d is not as it was sent: %q", lines, line)
		}
		s := found[rec.batchKey]
		if s == nil {
			s = new(set)
			found[rec.batchKey] = s
		}
		if s.has[rec.line] {
			return found, lines, errors.New("line twice: " + string(line))
		}
		s.has[rec.line] = true
	}
}
