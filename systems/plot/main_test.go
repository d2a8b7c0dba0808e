package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const measured = `library,seconds,held,heap
quic-go,0.0,10,1048576
quic-go,1.0,2000,4194304
quiclife,0.0,0,1048576
quiclife,1.0,3,1048577
`

func TestRun(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.svg")
	if err := run(strings.NewReader(measured), out, "proxy"); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"<svg", "proxy: streams held, both ends", "proxy: live heap", "time (s)", "MiB", "quiclife"} {
		if !strings.Contains(string(b), text) {
			t.Errorf("no %q in the picture", text)
		}
	}
}

func TestBadInput(t *testing.T) {
	for _, in := range []string{"", "library,seconds,held,heap\n", "a,b,c,d\nquic-go,x,1,2\n", "a,b\nc,d\n", "a\n\"b"} {
		out := filepath.Join(t.TempDir(), "out.svg")
		if err := run(strings.NewReader(in), out, ""); err == nil {
			t.Errorf("%q was drawn", in)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%q left a file", in)
		}
	}
}
