// Package vettest finds the code that the analyzers are tested on.
package vettest

import (
	"path/filepath"
	"testing"
)

// Current returns the directory of the code that uses today's quic-go, and
// quiclife. Packages one or two directories below vet/ may call it.
func Current(t testing.TB) string { return dir(t, "testdata") }

// Old returns the directory of the code for quic-go before v0.53, when its
// streams were interfaces.
func Old(t testing.TB) string { return dir(t, "testdata/old") }

func dir(t testing.TB, name string) string {
	t.Helper()
	for _, up := range []string{"..", "../.."} {
		found, err := filepath.Abs(filepath.Join(up, name))
		if err != nil {
			t.Fatal(err)
		}
		if matches, _ := filepath.Glob(filepath.Join(found, "src")); matches != nil {
			return found
		}
	}
	t.Fatalf("there is no directory %s above", name)
	return ""
}
