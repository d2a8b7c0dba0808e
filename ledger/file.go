package ledger

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// ErrNotQlog is the error of [Read] for input that is not qlog, or not in a form
// that Read knows.
var ErrNotQlog = errors.New("ledger: not a JSON-SEQ qlog file")

const (
	maxRecord    = 4 << 20 // bytes; a packet's frames take some kilobytes
	maxParts     = 1 << 16 // objects or arrays in a record; in memory, each is far larger than in the file
	maxFileConns = 1 << 10
)

// ReadFile reads a qlog file, as quic-go writes it to QLOGDIR. See [Read].
func ReadFile(name string) ([]*Conn, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	conns, err := Read(f, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return conns, nil
}

// Read reads qlog as JSON text sequences, or as lines of one JSON object each.
// It returns the connections as they were after their last event. It needs memory
// for the streams that are held, not for the whole file.
//
// Read skips events that it does not know. An event that cannot be read, or that
// is cut short at the end of the file, is not an error either: [Report].Missing
// mentions it. If the input does not begin as qlog does, the error matches
// [ErrNotQlog].
//
// If each is not nil, Read calls it after each event that may change a count or
// a blame, with the connection and the time of the event. If each returns an
// error, Read stops and returns that error.
func Read(r io.Reader, each func(*Conn, time.Time) error) ([]*Conn, error) {
	f := file{each: each}
	if err := f.read(bufio.NewReaderSize(r, 64<<10)); err != nil {
		return nil, err
	}
	conns := make([]*Conn, len(f.conns))
	for i, c := range f.conns {
		c.state.missing = f.missing(c)
		conns[i] = c.Conn
	}
	return conns, nil
}

// A file is the part of a file that was read so far.
type file struct {
	each  func(*Conn, time.Time) error
	conns []*fileConn

	begun      bool
	client     bool
	quicGo     bool
	defaultID  string
	clock      clock
	groups     map[string]*fileConn // by group ID, since the last header
	unreadable int64
	cut        bool
	crowded    bool // the file has more connections than we keep
}

type fileConn struct {
	*Conn
	unreadable int64 // unreadable records of the file before this connection began
}

// missing returns what the file lacks about c.
func (f *file) missing(c *fileConn) string {
	var all []string
	if n := f.unreadable - c.unreadable; n > 0 {
		records := "records"
		if n == 1 {
			records = "record"
		}
		all = append(all, fmt.Sprintf("%d %s of the file could not be read", n, records))
		for i := range c.state.kinds {
			c.state.kinds[i].fail("records of the file could not be read")
		}
	}
	if f.cut {
		all = append(all, "the file ends in the middle of a record")
	}
	if f.crowded {
		all = append(all, fmt.Sprintf("the file has more than %d connections", maxFileConns))
	}
	if c.state.our == nil {
		all = append(all, "our transport parameters are not in the file")
	}
	if c.state.peer == nil {
		all = append(all, "the peer's transport parameters are not in the file")
	}
	return strings.Join(all, "; ")
}

const recordSeparator = 0x1e // RFC 7464

var errTooLong = errors.New("record too long")

func (f *file) read(r *bufio.Reader) error {
	first, err := r.Peek(1)
	if err != nil && err != io.EOF {
		return err
	}
	if start, _ := r.Peek(4); bytes.HasPrefix(start, []byte("\x1f\x8b")) || bytes.Equal(start, []byte("\x28\xb5\x2f\xfd")) {
		return fmt.Errorf("%w: it is compressed", ErrNotQlog)
	}
	separator := byte('\n')
	if len(first) > 0 && first[0] == recordSeparator {
		separator = recordSeparator
	}
	var record []byte
	for {
		record, err = readRecord(r, separator, record[:0])
		bad := err
		if err == nil || err == io.EOF {
			bad = nil
			if text := bytes.Trim(record, "\x1e\r\n\t "); len(text) > 0 {
				bad = f.record(text, err == io.EOF)
			}
		} else if err != errTooLong {
			return err
		}
		switch stop := (*stopped)(nil); {
		case bad == nil:
		case errors.As(bad, &stop):
			return stop.err
		case !f.begun:
			return fmt.Errorf("%w: %w", ErrNotQlog, bad)
		case err == io.EOF:
			f.cut = true
		default:
			f.unreadable++
		}
		if err == io.EOF {
			if !f.begun {
				return fmt.Errorf("%w: it is empty", ErrNotQlog)
			}
			return nil
		}
	}
}

// readRecord reads up to the next separator, and appends the record to b. If the
// record is too long, readRecord skips it and returns errTooLong.
func readRecord(r *bufio.Reader, separator byte, b []byte) ([]byte, error) {
	tooLong := false
	for {
		part, err := r.ReadSlice(separator)
		if len(b)+len(part) > maxRecord {
			tooLong, b = true, b[:0]
		}
		if !tooLong {
			b = append(b, part...)
		}
		switch {
		case err == bufio.ErrBufferFull:
			continue
		case tooLong && (err == nil || err == io.EOF):
			return b, errTooLong // if this was the end, the next read returns io.EOF
		}
		return bytes.TrimSuffix(b, []byte{separator}), err
	}
}

// stopped is an error that each returned. It ends the reading.
type stopped struct{ err error }

func (s *stopped) Error() string { return s.err.Error() }

// A line is the JSON of a record: the header of a trace, or an event.
type line struct {
	Schema  string          `json:"file_schema"`
	Version string          `json:"qlog_version"`
	Title   string          `json:"title"`
	Trace   *traceHeader    `json:"trace"`
	Traces  json.RawMessage `json:"traces"`

	Time  number          `json:"time"`
	Name  string          `json:"name"`
	Group text            `json:"group_id"`
	Data  json.RawMessage `json:"data"`
}

type traceHeader struct {
	Title   string `json:"title"`
	Vantage struct {
		Type string `json:"type"`
	} `json:"vantage_point"`
	Common struct {
		Group     text            `json:"group_id"`
		ODCID     text            `json:"ODCID"`
		Format    string          `json:"time_format"`
		Reference json.RawMessage `json:"reference_time"`
	} `json:"common_fields"`
}

// record applies a record. It decodes the last one even if its event does not
// matter, because the last one may be cut short.
func (f *file) record(b []byte, last bool) error {
	if len(b) > maxParts && (bytes.Count(b, []byte("{")) > maxParts || bytes.Count(b, []byte("[")) > maxParts) {
		return errTooLong
	}
	if name, ok := quickName(b); ok && f.begun && !last && !f.clock.relative {
		if !isKnown(name) {
			return nil
		}
		var e struct {
			Time  number    `json:"time"`
			Group text      `json:"group_id"`
			Data  eventData `json:"data"`
		}
		if err := json.Unmarshal(b, &e); err != nil {
			return err
		}
		return f.event(name, e.Time, e.Group, &e.Data)
	}
	var l line
	if err := json.Unmarshal(b, &l); err != nil {
		if !f.begun {
			return errors.New("it does not begin with a line of JSON")
		}
		return err
	}
	switch {
	case l.Traces != nil:
		return errors.New("it is one JSON object with all traces (.qlog), and not a sequence (.sqlog)")
	case l.Trace != nil:
		return f.header(l)
	case !f.begun:
		return errors.New("its first record is not the header of a trace")
	case l.Name == "":
		return errors.New("an event without a name")
	case !isKnown(l.Name):
		f.clock.at(float64(l.Time)) // the time of the next event may be relative to it
		return nil
	}
	var data eventData
	if err := json.Unmarshal(l.Data, &data); err != nil {
		return err
	}
	return f.event(l.Name, l.Time, l.Group, &data)
}

// quickName returns the name of an event without decoding the JSON. It works for
// events as quic-go writes them, with the time and the name first. It is there
// because most events do not matter.
func quickName(b []byte) (string, bool) {
	rest, ok := bytes.CutPrefix(b, []byte(`{"time":`))
	if !ok {
		return "", false
	}
	_, rest, ok = bytes.Cut(rest[:min(len(rest), 100)], []byte(`,"name":"`))
	name, _, ended := bytes.Cut(rest, []byte(`"`))
	return string(name), ok && ended && !bytes.ContainsRune(name, '\\')
}

func (f *file) header(l line) error {
	switch l.Trace.Vantage.Type {
	case "client", "server":
		f.client = l.Trace.Vantage.Type == "client"
	default:
		return fmt.Errorf("its vantage point is %q, which is neither the client nor the server", l.Trace.Vantage.Type)
	}
	f.begun = true
	f.quicGo = strings.HasPrefix(l.Title, "quic-go") || strings.HasPrefix(l.Trace.Title, "quic-go")
	f.defaultID = string(l.Trace.Common.ODCID)
	if f.defaultID == "" {
		f.defaultID = string(l.Trace.Common.Group)
	}
	f.clock = newClock(l.Trace.Common.Format, l.Trace.Common.Reference)
	f.groups = make(map[string]*fileConn)
	if f.conn("") == nil {
		f.crowded = true
	}
	return nil
}

// conn returns the connection of a group. The group "" is that of the header.
// conn returns nil if there are too many connections.
func (f *file) conn(group string) *fileConn {
	if group == f.defaultID {
		group = ""
	}
	if c := f.groups[group]; c != nil {
		return c
	}
	if len(f.conns) >= maxFileConns {
		f.crowded = true
		return nil
	}
	c := &fileConn{Conn: newConn(f.client, f.quicGo), unreadable: f.unreadable}
	c.id = group
	if group == "" {
		c.id = f.defaultID
	}
	f.groups[group] = c
	f.conns = append(f.conns, c)
	return c
}

func (f *file) event(name string, time number, group text, data *eventData) error {
	at := f.clock.at(float64(time))
	c := f.conn(string(group))
	if c == nil || !c.read(name, data, at) {
		return nil
	}
	s := c.state
	if s.began == 0 {
		s.began = at
	}
	c.last = max(c.last, at)
	if f.each != nil {
		if err := f.each(c.Conn, timeOf(at)); err != nil {
			return &stopped{err}
		}
	}
	return nil
}
