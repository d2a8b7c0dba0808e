package lab

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// healthy is a system that counts to three and works on quiclife alone.
var healthy = System{
	Name:  "name",
	About: "about",
	Run: func(ctx context.Context, r *Run) error {
		looks := make(chan struct{}, 1000)
		r.Watch(func() Sample {
			looks <- struct{}{}
			return Sample{Requests: 7, Open: -1, Limit: 8, Held: 9, More: []Value{{"more", "10"}}}
		})
		for range printEvery + 1 {
			<-looks
		}
		<-ctx.Done()
		r.Printf("a line")
		if r.Plain {
			return errors.New("stuck")
		}
		return nil
	},
}

func TestDo(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, healthy.Do(&out, Options{For: 1500 * time.Millisecond}))
	require.Regexp(t, `(?s)^name on quiclife, 1.5s\nabout\nStreams .*\n +s requests failed +open +limit +held heap MiB goroutines +more\n`+
		`( +\d+\.\d +7 +0 +\? +8 +9 +\d+\.\d +\d+ +10\n)+a line\nok \(quiclife\)\n$`, out.String())
	require.NotContains(t, out.String(), "%") // a bar is for terminals

	out.Reset()
	require.EqualError(t, healthy.Do(&out, Options{For: 1500 * time.Millisecond, Plain: true}), "stuck")
	require.Contains(t, out.String(), "FAILED (quic-go): stuck\n")
}

func TestBadOptions(t *testing.T) {
	var out bytes.Buffer
	for _, opt := range []Options{{}, {For: -1}, {For: 1, Plot: "picture.png"}} {
		require.Error(t, healthy.Do(&out, opt))
	}
	require.NotContains(t, out.String(), "about") // nothing was run
}

func TestScreenOnTerminal(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out)
	s.terminal = true
	s.line("head", "1", 0.5)
	s.line("head", "2", 1)
	s.printf("%s", "between\n")
	s.end()
	half, full := "[====================                    ]  50%", "[========================================] 100%"
	wipe := "\r\x1b[K"
	require.Equal(t, "head\n1\n"+half+wipe+"2\n"+full+wipe+"between\n"+full+wipe, out.String())
}

func TestTable(t *testing.T) {
	r := &Run{Plain: true, samples: []Sample{{At: 1500 * time.Millisecond, Held: 2, Heap: 3}}}
	require.Equal(t, "library,seconds,held,heap\nquic-go,1.500,2,3\n", table([]*Run{r}).String())
}
