package main

import (
	"context"
	"log"

	"github.com/quic-go/quic-go"
)

func main() {
	c, err := quic.DialAddr(context.Background(), "")
	if err != nil {
		log.Fatal(err)
	}
	s, err := c.OpenStream()
	if err != nil {
		log.Fatal(err)
	}
	s.Write(nil)
	if err := run(c); err != nil {
		log.Fatal(err)
	}
	for range 3 {
		again(c)
	}
}

func run(c *quic.Conn) error {
	s, err := c.OpenStream() // nothing comes after it
	if err != nil {
		return err
	}
	_, err = s.Write(nil)
	deeper(c)
	return err
}

func deeper(c *quic.Conn) {
	s, err := c.OpenStream()
	if err == nil {
		s.Write(nil)
	}
}

func again(c *quic.Conn) {
	s, err := c.OpenStream() // want `neither half is ended on the path that returns`
	if err != nil {
		return
	}
	s.Write(nil)
}
