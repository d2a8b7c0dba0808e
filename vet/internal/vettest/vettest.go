// Package vettest knows where the code is that the analyzers are tested on.
package vettest

import (
	"path/filepath"
	"testing"
)

// Current returns the directory of code that uses quic-go as it is, and
// quiclife. It is called from packages one or two directories below vet/.
func Current(t testing.TB) string { return dir(t, "testdata") }

// Old returns that of code for quic-go before v0.53, when its streams were
// interfaces.
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
