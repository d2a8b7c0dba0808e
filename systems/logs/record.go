package main

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"sync"
)

// appendLine appends line n of a batch, without the newline. Its content depends
// only on k and n, so that a reader of the file can tell whether it is right.
func appendLine(b []byte, k batchKey, n int) []byte {
	b = fmt.Appendf(b, "producer=%d batch=%d line=%d took=%dms msg=", k.producer, k.batch, n, n%90+10)
	x := uint64(k.producer)<<48 + uint64(k.batch)<<16 + uint64(n)
	for range 5 {
		x = (x + 1) * 0x9e3779b97f4a7c15
		b = strconv.AppendUint(b, x, 36)
	}
	return b
}

const (
	malformed = "producer=? batch" // not a list of fields
	tripping  = "took=5"           // has no unit, so the parser panics
)

// A batchKey names a batch.
type batchKey struct{ producer, batch int }

// A record is a parsed line.
type record struct {
	batchKey
	line   int
	took   int // in ms
	text   []byte
	fields [8]struct{ key, value []byte } // parts of text
}

var records = sync.Pool{New: func() any { return new(record) }}

var errMalformed = errors.New("malformed record")

// parse reads a line of key=value fields.
func (r *record) parse(line []byte) (err error) {
	r.batchKey, r.line, r.took = batchKey{}, 0, 0 // r may have been used before
	r.text = append(r.text[:0], line...)
	n := 0
	for field := range bytes.FieldsSeq(r.text) {
		key, value, ok := bytes.Cut(field, []byte("="))
		if !ok || n == len(r.fields) {
			return fmt.Errorf("%w: %q", errMalformed, field)
		}
		r.fields[n].key, r.fields[n].value = key, value
		n++
		switch string(key) {
		case "producer":
			r.producer, err = strconv.Atoi(string(value))
		case "batch":
			r.batch, err = strconv.Atoi(string(value))
		case "line":
			r.line, err = strconv.Atoi(string(value))
		case "took": // a bug: it panics if the value is shorter than its unit
			r.took, err = strconv.Atoi(string(value[:len(value)-len("ms")]))
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errMalformed, err)
		}
	}
	return nil
}
