package quiclife

import (
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
)

// Who opened a stream.

// A stack is the calls that led to an OpenStream or AcceptStream, zero-terminated.
type stack [16]uintptr

// sampledDepth is how many calls are remembered without CaptureStacks.
const sampledDepth = 4

// callers returns the stack of quiclife's caller, skip calls further out, in
// full or as much as a sample has.
func callers(skip int, full bool) *stack {
	s := new(stack)
	depth := len(s) - 1
	if !full {
		depth = sampledDepth
	}
	runtime.Callers(skip+2, s[:depth])
	return s
}

// handlerStack is what stands for the opener of a stream that a handler is
// given.
func handlerStack(f any) *stack {
	return &stack{reflect.ValueOf(f).Pointer() + 1} // as if it was the address that a call in it returns to
}

// samples has the stacks of one stream in sampleEvery captured for some time
// after a leak, so that the next ones can be found without a restart.
type samples struct {
	until  atomic.Int64 // Unix nanoseconds, 0: there was no leak
	opened atomic.Uint32
}

const (
	sampleEvery = 16
	sampleFor   = 10 * time.Minute
)

func (s *samples) leaked(now time.Time) { s.until.Store(now.Add(sampleFor).UnixNano()) }

// next reports whether st is one of them.
func (s *samples) next(st *streamState) bool {
	until := s.until.Load()
	return until != 0 && st.conn.start.Add(st.opened).UnixNano() < until && s.opened.Add(1)%sampleEvery == 0
}

// rememberStacks returns stack.String for many, most of which are the same few.
func rememberStacks() func(*stack) string {
	known := make(map[stack]string)
	return func(s *stack) string {
		if s == nil {
			return ""
		}
		text, ok := known[*s]
		if !ok {
			text = s.String()
			known[*s] = text
		}
		return text
	}
}

func (s *stack) String() string {
	if s == nil {
		return ""
	}
	var b strings.Builder
	frames := runtime.CallersFrames(s[:])
	for {
		frame, more := frames.Next()
		if frame.Function != "" {
			fmt.Fprintf(&b, "%s %s:%d\n", frame.Function, frame.File, frame.Line)
		}
		if !more {
			return b.String()
		}
	}
}
