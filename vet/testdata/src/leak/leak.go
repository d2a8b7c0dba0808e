package leak

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"helpers"
)

var bad bool

func pack() ([]byte, error) { return nil, nil }

// Error paths.

func errorPath(ctx context.Context, c *quic.Conn) ([]byte, error) {
	s, err := c.OpenStreamSync(ctx) // want `this stream leaks: neither half is ended on the path that returns`
	if err != nil {
		return nil, err
	}
	msg, err := pack()
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if _, err := s.Write(msg); err != nil {
		return nil, err
	}
	return io.ReadAll(s)
}

func deferredInTime(ctx context.Context, c *quic.Conn) ([]byte, error) {
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	msg, err := pack()
	if err != nil {
		return nil, err
	}
	if _, err := s.Write(msg); err != nil {
		return nil, err
	}
	return io.ReadAll(s)
}

func never(c *quic.Conn) error {
	s, err := c.OpenStream() // want `its send half is not ended on the path that returns`
	if err != nil {
		return err
	}
	s.Write(nil)
	_, err = io.ReadAll(s)
	return err
}

func onlyCancelRead(c *quic.Conn) {
	s, err := c.OpenStream() // want `its send half is not ended on the path that returns`
	if err != nil {
		return
	}
	s.CancelRead(0)
}

func silenced(c *quic.Conn) {
	s, _ := c.OpenStream() //quiclife:ended with the connection, which it is the control stream of
	s.Write(nil)
}

func writeError(c *quic.Conn) error {
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	if _, err := s.Write(nil); err != nil {
		return err // the error has ended the send half
	}
	return s.Close()
}

func readError(c *quic.Conn) error {
	s, err := c.OpenStream() // want `its send half is not ended on the path that returns`
	if err != nil {
		return err
	}
	if _, err := s.Read(nil); err != nil {
		return err
	}
	return s.Close()
}

func nilCheckTheOtherWay(c *quic.Conn) error {
	s, err := c.OpenStream()
	if err == nil {
		s.Write(nil)
		err = s.Close()
	}
	return err
}

func sameErrorTwice(c *quic.Conn) error {
	s, err := c.OpenStream()
	if err == nil {
		_, err = s.Write(nil)
	}
	if err != nil {
		return err
	}
	return s.Close()
}

func laterErrorMerged(c *quic.Conn) error {
	s, err := c.OpenStream() // want `neither half is ended on the path that returns`
	if err == nil {
		_, err = pack()
	}
	if err != nil {
		return err
	}
	return s.Close()
}

func errorsIs(ctx context.Context, c *quic.Conn) error {
	s, err := c.AcceptStream(ctx)
	if errors.Is(err, context.Canceled) || err == io.EOF {
		return nil
	}
	var app *quic.ApplicationError
	if errors.As(err, &app) {
		return nil
	}
	if e, ok := err.(net.Error); ok && e.Timeout() {
		return nil
	}
	switch err {
	case nil:
	case io.EOF:
		return nil
	default:
		return err
	}
	return s.Close()
}

func isGone(err error) bool { return err == io.EOF }

func unknownCheck(ctx context.Context, c *quic.Conn) {
	s, err := c.AcceptStream(ctx)
	if isGone(err) {
		return
	}
	if err == nil {
		s.Close()
	}
}

func streamNotNil(c *quic.Conn) {
	s, _ := c.OpenStream()
	if s == nil {
		return
	}
	defer s.Close()
}

func deadline(c *quic.Conn) error {
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	if err := s.SetDeadline(time.Now()); err != nil {
		return err // it never fails
	}
	return s.Close()
}

func cannotFail(c *quic.Conn) error {
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	var msg bytes.Buffer
	if err := binary.Write(&msg, binary.BigEndian, uint16(10)); err != nil {
		return err
	}
	if _, err := msg.Write(nil); err != nil {
		return err
	}
	return s.Close()
}

func correlated(c *quic.Conn, keep bool) {
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	if keep {
		helpers.Keep(s)
	}
	pack()
	if !keep {
		s.CancelWrite(0)
	}
}

func wrongWayRound(c *quic.Conn, keep bool) {
	s, err := c.OpenStream() // want `neither half is ended on the path that returns`
	if err != nil {
		return
	}
	if keep {
		helpers.Keep(s)
	}
	if keep {
		s.CancelWrite(0)
	}
}

type options struct{ keep bool }

func correlatedField(c *quic.Conn, o *options) {
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	if !o.keep {
		defer s.Close()
	}
	pack()
	if o.keep {
		helpers.Keep(s)
	}
}

// Fields, channels, maps, returns.

type conn struct {
	*quic.Conn
	stream *quic.Stream
	rwc    io.ReadWriteCloser
	m      map[int]*quic.Stream
	ch     chan *quic.Stream
	mu     sync.Mutex
}

func (c *conn) field() error {
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stream = s
	return nil
}

func (c *conn) embedded() error {
	s, err := c.OpenStream() // want `neither half is ended on the path that returns`
	if err != nil {
		return err
	}
	if bad {
		return errors.New("bad")
	}
	c.rwc = s
	return nil
}

func (c *conn) aMap() {
	s, err := c.OpenStream()
	if err == nil {
		c.m[1] = s
	}
}

func (c *conn) channel() {
	s, err := c.OpenStream()
	if err == nil {
		c.ch <- s
	}
}

func (c *conn) selects(ctx context.Context) {
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	select {
	case c.ch <- s:
	case <-ctx.Done():
		s.CancelWrite(0)
	}
}

func returned(c *quic.Conn) (io.ReadWriteCloser, error) {
	s, err := c.OpenStream()
	if err != nil {
		return nil, err
	}
	return s, nil
}

func forwarded(c *quic.Conn) (*quic.Stream, error) { return c.OpenStream() }

type wrapper struct{ s *quic.Stream }

func inStruct(c *quic.Conn) (*wrapper, error) {
	s, err := c.OpenStream() // want `neither half is ended on the path that returns`
	if err != nil {
		return nil, err
	}
	if bad {
		return nil, errors.New("bad")
	}
	return &wrapper{s: s}, nil
}

func named(c *quic.Conn) (s *quic.Stream, err error) {
	s, err = c.OpenStream()
	return
}

func namedAndDeferred(c *quic.Conn) (s *quic.Stream, err error) {
	defer func() {
		if err != nil && s != nil {
			s.CancelRead(0)
			s.CancelWrite(0)
		}
	}()
	s, err = c.OpenStream()
	if err != nil {
		return nil, err
	}
	if _, err = pack(); err != nil {
		return nil, err
	}
	return s, nil
}

// Interfaces and unknown functions.

type handler interface{ Handle(io.ReadWriteCloser) }

func interfaceCall(c *quic.Conn, h handler) {
	if s, err := c.OpenStream(); err == nil {
		h.Handle(s)
	}
}

func functionValue(c *quic.Conn, f func(io.Closer)) {
	if s, err := c.OpenStream(); err == nil {
		f(s)
	}
}

func ioCloser(c *quic.Conn) {
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	var closer io.Closer = s
	defer closer.Close()
}

func closeQuietly(c io.Closer) {
	if err := c.Close(); err != nil {
		log.Println(err)
	}
}

func throughHelper(c *quic.Conn) {
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	defer closeQuietly(s)
	helpers.ReadMessage(s)
}

func maybeCloser(r io.Reader) {
	io.ReadAll(r)
	if c, ok := r.(io.Closer); ok {
		c.Close()
	}
}

func throughAssertion(c *quic.Conn) {
	if s, err := c.OpenStream(); err == nil {
		maybeCloser(s)
	}
}

// Helpers.

func borrowed(c *quic.Conn) {
	s, err := c.OpenStream() // want `its send half is not ended on the path that returns`
	if err != nil {
		return
	}
	helpers.ReadMessage(s)
	log.Println(helpers.ID(s))
}

func endedElsewhere(c *quic.Conn) {
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	helpers.CloseBoth(s)
}

func keptElsewhere(c *quic.Conn) {
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	helpers.Keep(s)
}

func generic(c *quic.Conn) {
	s, err := c.OpenStream() // want `its send half is not ended on the path that returns`
	if err != nil {
		return
	}
	helpers.Drain(s)
}

func open[C interface{ OpenStream() (*quic.Stream, error) }](c C) {
	s, err := c.OpenStream() // want `neither half is ended on the path that returns`
	if err != nil {
		return
	}
	s.SetDeadline(time.Now())
}

func helperEndsOnError(c *quic.Conn) error {
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	if err := helpers.CloseOnError(s); err != nil {
		return err
	}
	return s.Close()
}

func helperEndsOnErrorOnly(c *quic.Conn) error {
	s, err := c.OpenStream() // want `neither half is ended on the path that returns`
	if err != nil {
		return err
	}
	if err := helpers.CloseOnError(s); err != nil {
		return err
	}
	return nil
}

// Readers and writers around the stream.

func wrapped(c *quic.Conn) error {
	s, err := c.OpenStream() // want `its send half is not ended on the path that returns`
	if err != nil {
		return err
	}
	w := bufio.NewWriter(s)
	fmt.Fprintf(w, "GET %d\n", 1)
	w.Flush()
	var answer struct{}
	return json.NewDecoder(bufio.NewReader(s)).Decode(&answer)
}

func wrappedAndKept(c *quic.Conn) (*bufio.ReadWriter, error) {
	s, err := c.OpenStream()
	if err != nil {
		return nil, err
	}
	return bufio.NewReadWriter(bufio.NewReader(s), bufio.NewWriter(s)), nil
}

// Loops.

func acceptLoop(ctx context.Context, c *quic.Conn) error {
	for {
		s, err := c.AcceptStream(ctx) // want `neither half is ended on the path that goes on to the next stream`
		if err != nil {
			return err
		}
		if s.StreamID() > 10 {
			continue
		}
		go handle(s)
	}
}

func handle(s *quic.Stream) {
	defer s.Close()
	io.Copy(s, s)
}

func serve(ctx context.Context, c *quic.Conn) error {
	for {
		s, err := c.AcceptStream(ctx) // want `its send half is not ended on the path that goes on to the next stream`
		if err != nil {
			return err
		}
		go handleBadly(s)
	}
}

func handleBadly(s *quic.Stream) {
	msg, err := helpers.ReadMessage(s)
	if err != nil {
		return
	}
	s.Write(msg)
	s.Close()
}

func serveInClosure(ctx context.Context, c *quic.Conn) error {
	for {
		s, err := c.AcceptStream(ctx) // want `its send half is not ended on the path that goes on to the next stream`
		if err != nil {
			return err
		}
		go func() {
			if _, err := helpers.ReadMessage(s); err != nil {
				return
			}
			s.Close()
		}()
	}
}

func serveCautiously(ctx context.Context, c *quic.Conn) error {
	for {
		s, err := c.AcceptStream(ctx)
		if err != nil {
			return err
		}
		go handleCautiously(s, c)
	}
}

func handleCautiously(s *quic.Stream, c *quic.Conn) {
	if c == nil || s == nil {
		return
	}
	defer s.Close()
	helpers.ReadMessage(s)
}

func serveInWaitGroup(ctx context.Context, c *quic.Conn) {
	var handlers sync.WaitGroup
	defer handlers.Wait()
	for {
		s, err := c.AcceptStream(ctx) // want `its send half is not ended on the path that goes on to the next stream`
		if err != nil {
			return
		}
		handlers.Go(func() {
			handleBadly(s)
		})
	}
}

func serveInWaitGroupWell(ctx context.Context, c *quic.Conn) {
	var handlers sync.WaitGroup
	defer handlers.Wait()
	for {
		s, err := c.AcceptStream(ctx)
		if err != nil {
			return
		}
		handlers.Go(func() {
			defer s.Close()
			handleBadly(s)
		})
	}
}

type opener[S io.ReadWriteCloser] interface {
	OpenStream() (S, error)
	OpenStreamSync(context.Context) (S, error)
}

func genericStream[S io.ReadWriteCloser](ctx context.Context, c opener[S]) error {
	s, err := c.OpenStream() // want `neither half is ended on the path that returns`
	if _, full := errors.AsType[*quic.StreamLimitReachedError](err); full {
		s, err = c.OpenStreamSync(ctx) // want `neither half is ended on the path that returns`
	}
	if err != nil {
		return err
	}
	if bad {
		return errors.New("bad")
	}
	return s.Close()
}

func serveWell(ctx context.Context, c *quic.Conn) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		s, err := c.AcceptStream(ctx)
		if err != nil {
			return err
		}
		wg.Add(1)
		go func(s *quic.Stream) {
			defer wg.Done()
			defer s.Close()
			helpers.ReadMessage(s)
		}(s)
	}
}

func keepLast(ctx context.Context, c *quic.Conn) {
	var last *quic.Stream
	for range 10 {
		s, err := c.AcceptStream(ctx)
		if err != nil {
			break
		}
		if last != nil {
			last.Close()
		}
		last = s
	}
	if last != nil {
		last.Close()
	}
}

func many(c *quic.Conn) error {
	var all []*quic.Stream
	for range 10 {
		s, err := c.OpenStream()
		if err != nil {
			return err
		}
		all = append(all, s)
	}
	for _, s := range all {
		s.Close()
	}
	return nil
}

func retry(ctx context.Context, c *quic.Conn) error {
	var s *quic.Stream
	var err error
	for range 3 {
		s, err = c.OpenStreamSync(ctx)
		if err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	return s.Close()
}

// Closures and deferred functions.

func deferredClosure(c *quic.Conn) error {
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	defer func() {
		s.CancelRead(0)
		if err := s.Close(); err != nil {
			log.Println(err)
		}
	}()
	_, err = pack()
	return err
}

func deferredOnError(c *quic.Conn) (err error) {
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	done := false
	defer func() {
		if !done {
			s.CancelWrite(0)
		}
	}()
	if _, err := pack(); err != nil {
		return err
	}
	done = true
	return s.Close()
}

func closureCalled(c *quic.Conn) {
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	func() {
		defer s.Close()
		helpers.ReadMessage(s)
	}()
}

func closureBorrows(c *quic.Conn) {
	s, err := c.OpenStream() // want `its send half is not ended on the path that returns`
	if err != nil {
		return
	}
	func() {
		helpers.ReadMessage(s)
	}()
}

func closureHandedOn(ctx context.Context, c *quic.Conn) {
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	context.AfterFunc(ctx, func() { s.CancelWrite(0) })
}

func methodValue(c *quic.Conn) func() error {
	s, err := c.OpenStream()
	if err != nil {
		return nil
	}
	return s.Close
}

func deferredBefore(c *quic.Conn) {
	var s *quic.Stream
	defer func() {
		if s != nil {
			s.Close()
		}
	}()
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	s.Write(nil)
}

func endlessGoroutine(c *quic.Conn) {
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	go func() {
		for {
			s.Write(nil)
		}
	}()
}

// Calls that do not return, and connections that end.

func fatal(c *quic.Conn) {
	s, err := c.OpenStream()
	if err != nil {
		log.Fatal(err)
	}
	if bad {
		log.Fatal("bad")
	}
	if s.StreamID() > 10 {
		panic("many")
	}
	if s.StreamID() > 20 {
		os.Exit(1)
	}
	s.Close()
}

func connClosed(ctx context.Context) error {
	c, err := quic.DialAddr(ctx, "")
	if err != nil {
		return err
	}
	defer c.CloseWithError(0, "")
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	_, err = s.Write(nil)
	return err
}

func connClosedOnError(c *quic.Conn) error {
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	if _, err := pack(); err != nil {
		helpers.Hangup(c)
		return err
	}
	return s.Close()
}

// greet fails only where its caller closes the connection.
func greet(c *quic.Conn) error {
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	if _, err := pack(); err != nil {
		return err
	}
	return s.Close()
}

func dialAndGreet(ctx context.Context) (*quic.Conn, error) {
	c, err := quic.DialAddr(ctx, "")
	if err != nil {
		return nil, err
	}
	if err := greet(c); err != nil {
		c.CloseWithError(1, "")
		return nil, err
	}
	return c, nil
}

// ask fails where its caller goes on.
func ask(c *quic.Conn) error {
	s, err := c.OpenStream() // want `neither half is ended on the path that returns`
	if err != nil {
		return err
	}
	if _, err := pack(); err != nil {
		return err
	}
	return s.Close()
}

func askAgain(c *quic.Conn) error {
	for range 3 {
		if err := ask(c); err == nil {
			return nil
		}
	}
	return errors.New("no answer")
}

type session interface {
	OpenStream() (*quic.Stream, error)
	Close() error
}

func sessionClosed(c session) error {
	defer c.Close()
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	_, err = s.Write(nil)
	return err
}

func connClosedByContext(ctx context.Context, c *quic.Conn) {
	context.AfterFunc(ctx, func() { c.CloseWithError(0, "") })
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	s.Write(nil)
}

func loopThenConnClosed(ctx context.Context, c *quic.Conn) {
	defer c.CloseWithError(0, "")
	for {
		s, err := c.AcceptStream(ctx) // want `neither half is ended on the path that goes on to the next stream`
		if err != nil {
			return
		}
		if s.StreamID() > 10 {
			continue
		}
		s.Close()
	}
}

// Unidirectional streams.

func uniNotWritten(c *quic.Conn) error {
	s, err := c.OpenUniStream() // want `it is not ended on the path that returns`
	if err != nil {
		return err
	}
	msg, err := pack()
	if err != nil {
		return err
	}
	s.Write(msg)
	return s.Close()
}

func control(c *quic.Conn) error {
	s, err := c.OpenUniStream()
	if err != nil {
		return err
	}
	_, err = s.Write(nil)
	return err // it lives as long as the connection
}

func uniClosedOnlyIfGood(c *quic.Conn) error {
	s, err := c.OpenUniStream() // want `it is not ended on the path that returns`
	if err != nil {
		return err
	}
	s.Write(nil)
	if bad {
		return errors.New("bad")
	}
	return s.Close()
}

func uniDropped(ctx context.Context, c *quic.Conn) {
	s, err := c.AcceptUniStream(ctx) // want `it is neither read nor ended on the path that returns`
	if err != nil {
		return
	}
	log.Println(s.StreamID())
}

func uniRead(ctx context.Context, c *quic.Conn) {
	s, err := c.AcceptUniStream(ctx)
	if err != nil {
		return
	}
	s.Read(nil)
}

// Aliases.

type (
	myConn   = quic.Conn
	myStream = quic.Stream
)

func aliased(c *myConn) {
	var s *myStream
	s, err := c.OpenStream() // want `neither half is ended on the path that returns`
	if err != nil {
		return
	}
	s.StreamID()
}

func either(c *quic.Conn, sync bool) error {
	var s *quic.Stream
	var err error
	if sync {
		s, err = c.OpenStreamSync(context.Background())
	} else {
		s, err = c.OpenStream()
	}
	if err != nil {
		return err
	}
	return s.Close()
}

func errorOnly(ctx context.Context, c *quic.Conn) error {
	_, err := c.AcceptStream(ctx) // waits until the connection is closed
	return err
}
