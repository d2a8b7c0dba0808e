package quiclife

import (
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
)

// Where streams were opened.

// A stack is the program counters of the calls that led to an OpenStream or
// AcceptStream. It ends with a zero.
type stack [16]uintptr

// sampledDepth is how many calls are captured without CaptureStacks.
const sampledDepth = 4

// callers returns the stack of its caller, without the innermost skip calls. It
// is complete if full is true, else sampledDepth calls deep.
func callers(skip int, full bool) *stack {
	s := new(stack)
	depth := len(s) - 1
	if !full {
		depth = sampledDepth
	}
	runtime.Callers(skip+2, s[:depth])
	return s
}

// handlerStack returns a stack that names handler f as the opener of its
// streams.
func handlerStack(f any) *stack {
	return &stack{reflect.ValueOf(f).Pointer() + 1} // looks like a return address in f
}

// samples captures the stack of one stream in sampleEvery for some time after a
// leak, so that the next leaks can be found without a restart.
type samples struct {
	until  atomic.Int64 // Unix nanoseconds, or 0 if there was no leak
	opened atomic.Uint32
}

const (
	sampleEvery = 16
	sampleFor   = 10 * time.Minute
)

func (s *samples) leaked(now time.Time) { s.until.Store(now.Add(sampleFor).UnixNano()) }

// next reports whether st is one of the streams to sample.
func (s *samples) next(st *streamState) bool {
	until := s.until.Load()
	return until != 0 && st.conn.start.Add(st.opened).UnixNano() < until && s.opened.Add(1)%sampleEvery == 0
}

// rememberStacks returns a cached stack.String, for many streams with few
// distinct stacks.
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
		switch frame.Function {
		case "", "runtime.goexit", "runtime.main": // below every goroutine's first call
		default:
			fmt.Fprintf(&b, "%s %s:%d\n", frame.Function, frame.File, frame.Line)
		}
		if !more {
			return b.String()
		}
	}
}
