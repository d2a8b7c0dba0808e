// Command shutdown ends a server so that nothing that was written is lost, then
// one with a handler that does not end: it is cut, and Shutdown says so.
//
//	go run ./examples/shutdown
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"time"

	"github.com/quiclife/quiclife"
)

func main() {
	if err := run(os.Stdout); err != nil {
		log.Fatal(err)
	}
}
