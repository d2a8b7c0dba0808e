package ledger_test

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/testutils/simnet"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/quictest"
	"github.com/quiclife/quiclife/ledger"
)

// Each end does one of seven things with its send half, and one of four with its
// receive half. quic-go's stream maps then show which streams hold a slot. Whose
// move it is follows from what the two applications did.

const (
	smallWrite = 10
	largeWrite = 20_000 // more than the stream's window
)

var matrixConf = quic.Config{
	MaxIncomingStreams: 200, MaxIncomingUniStreams: 200,
	InitialStreamReceiveWindow: 2048, MaxStreamReceiveWindow: 2048,
	InitialConnectionReceiveWindow: 1 << 22, MaxConnectionReceiveWindow: 1 << 22,
	MaxIdleTimeout: time.Hour,
}

type sendHalf interface {
	io.WriteCloser
	CancelWrite(quic.StreamErrorCode)
}

type receiveHalf interface {
	io.Reader
	CancelRead(quic.StreamErrorCode)
}

type way[S any] struct {
	name string
	do   func(S)
}

const sendLarge = 6

var sendWays = []way[sendHalf]{
	{"send nothing", func(sendHalf) {}},
	{"write", func(s sendHalf) { s.Write(make([]byte, smallWrite)) }},
	{"write, Close", func(s sendHalf) { s.Write(make([]byte, smallWrite)); s.Close() }},
	{"Close", func(s sendHalf) { s.Close() }},
	{"write, CancelWrite", func(s sendHalf) { s.Write(make([]byte, smallWrite)); s.CancelWrite(1) }},
	{"write, Close, CancelWrite", func(s sendHalf) { s.Write(make([]byte, smallWrite)); s.Close(); s.CancelWrite(2) }},
	{"write much", func(s sendHalf) { s.Write(make([]byte, largeWrite)) }},
}

const (
	readToEnd = 2
	readStop  = 3
)

var receiveWays = []way[receiveHalf]{
	{"do not read", func(receiveHalf) {}},
	{"read some", func(s receiveHalf) { io.ReadFull(s, make([]byte, smallWrite)) }},
	{"read to the end", func(s receiveHalf) { io.Copy(io.Discard, s) }},
	{"CancelRead", func(s receiveHalf) { s.CancelRead(3) }},
}

// A pairing is what both ends do with a stream.
type pairing struct {
	uni                    bool
	openSend, openRecv     int
	acceptSend, acceptRecv int
	accepted               bool
}

func (p pairing) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "opener: %s", sendWays[p.openSend].name)
	if !p.uni {
		fmt.Fprintf(&s, ", %s", receiveWays[p.openRecv].name)
	}
	if !p.accepted {
		return s.String() + "; not accepted"
	}
	s.WriteString("; acceptor: ")
	if !p.uni {
		fmt.Fprintf(&s, "%s, ", sendWays[p.acceptSend].name)
	}
	return s.String() + receiveWays[p.acceptRecv].name
}

// pairings returns all pairings of a kind. Those that are not accepted come last.
func pairings(uni bool) (all []pairing) {
	for openSend := range sendWays {
		for openRecv := range receiveWays {
			for acceptSend := range sendWays {
				for acceptRecv := range receiveWays {
					if !uni || openRecv+acceptSend == 0 {
						all = append(all, pairing{uni, openSend, openRecv, acceptSend, acceptRecv, true})
					}
				}
			}
		}
	}
	for openSend := range sendWays {
		for openRecv := range receiveWays {
			if !uni || openRecv == 0 {
				all = append(all, pairing{uni: uni, openSend: openSend, openRecv: openRecv})
			}
		}
	}
	return all
}

const (
	nobody      = ""
	openerApp   = "the opener's application"
	acceptorApp = "the acceptor's application"
)

// waitsFor returns what a half waits for, or nobody if the half is over.
func waitsFor(sender, receiver string, send, receive int) string {
	switch {
	case receive == readStop, send >= 2 && send <= 5:
		return nobody
	case send == sendLarge && receive != readToEnd:
		return receiver // the window is full, and it does not read
	}
	return sender
}

// truth returns whose move it is on a stream that is held.
func (p pairing) truth() []string {
	all := []string{waitsFor(openerApp, acceptorApp, p.openSend, p.acceptRecv)}
	if !p.uni {
		all = append(all, waitsFor(acceptorApp, openerApp, p.acceptSend, p.openRecv))
	}
	slices.Sort(all)
	all = slices.DeleteFunc(slices.Compact(all), func(s string) bool { return s == nobody })
	if len(all) == 0 {
		return []string{acceptorApp} // complete on the wire
	}
	return all
}

// unknowns counts the streams that the ledgers list, and those of them with
// BlameUnknown. It counts them by their true state.
type unknowns struct {
	mu    sync.Mutex
	count map[string][2]int
}

func (u *unknowns) add(what string, unknown bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.count == nil {
		u.count = make(map[string][2]int)
	}
	n := u.count[what]
	n[1]++
	if unknown {
		n[0]++
	}
	u.count[what] = n
}

func (u *unknowns) log(t *testing.T) {
	for _, what := range slices.Sorted(maps.Keys(u.count)) {
		n := u.count[what]
		t.Logf("%5d of %5d unknown (%3.0f%%): %s", n[0], n[1], 100*float64(n[0])/float64(n[1]), what)
	}
}

// A deal is the streams of one connection. One end opens them all.
type deal struct {
	fromServer bool
	pairings   []pairing // of each kind, those that are not accepted come last
	seed       uint64
}

// play opens the streams of d, waits for rest, and judges the ledgers.
func (d deal) play(t *testing.T, client, server end, rest func(), share *unknowns) {
	opener, acceptor := client, server
	if d.fromServer {
		opener, acceptor = server, client
	}
	var running sync.WaitGroup
	t.Cleanup(func() {
		client.CloseWithError(0, "")
		server.CloseWithError(0, "")
		running.Wait()
	})
	// A stream that ends first shows that slots are given back one by one.
	s, err := opener.OpenStream()
	require.NoError(t, err)
	require.NoError(t, s.Close())
	in, err := acceptor.AcceptStream(t.Context())
	require.NoError(t, err)
	require.NoError(t, in.Close())
	for _, r := range []io.Reader{s, in} {
		_, err = io.ReadAll(r)
		require.NoError(t, err)
	}
	rest()
	// One more stream of each kind opens those below it that send nothing.
	for _, uni := range []bool{false, true} {
		d.pairings = append(d.pairings, pairing{uni: uni, openSend: 1})
	}
	ids := make(map[quic.StreamID]pairing)
	var toAccept [2][]pairing
	for _, p := range d.pairings {
		if p.uni {
			s, err := opener.OpenUniStream()
			require.NoError(t, err)
			ids[s.StreamID()] = p
			running.Go(func() { sendWays[p.openSend].do(s) })
		} else {
			s, err := opener.OpenStream()
			require.NoError(t, err)
			ids[s.StreamID()] = p
			running.Go(func() { sendWays[p.openSend].do(s) })
			running.Go(func() { receiveWays[p.openRecv].do(s) })
		}
		if p.accepted {
			i := 0
			if p.uni {
				i = 1
			}
			toAccept[i] = append(toAccept[i], p)
		}
	}
	accepted := make(chan error, 2)
	running.Go(func() {
		for _, p := range toAccept[0] {
			s, err := acceptor.AcceptStream(acceptor.Context())
			if err != nil {
				accepted <- err
				return
			}
			running.Go(func() { sendWays[p.acceptSend].do(s) })
			running.Go(func() { receiveWays[p.acceptRecv].do(s) })
		}
		accepted <- nil
	})
	running.Go(func() {
		for _, p := range toAccept[1] {
			s, err := acceptor.AcceptUniStream(acceptor.Context())
			if err != nil {
				accepted <- err
				return
			}
			running.Go(func() { receiveWays[p.acceptRecv].do(s) })
		}
		accepted <- nil
	})
	require.NoError(t, <-accepted)
	require.NoError(t, <-accepted)
	rest()
	requireCounts(t, client, server, d.pairings)
	for i := range 2 {
		kept := held(acceptor.Conn, incoming+i)
		judge(t, acceptor, incoming+i, ids, kept, share)
		judge(t, opener, outgoing+i, ids, kept, share)
	}
}

// judge compares what the ledger of an end says about each stream of a kind with
// the truth.
func judge(t *testing.T, e end, kind int, ids map[quic.StreamID]pairing, kept map[quic.StreamID]bool, share *unknowns) {
	t.Helper()
	us, them, view := acceptorApp, openerApp, "acceptor"
	if kind >= outgoing {
		us, them, view = openerApp, acceptorApp, "opener"
	}
	listed := make(map[quic.StreamID]bool)
	for s := range e.ledger.Streams() {
		if s.Incoming != (kind < outgoing) || s.Unidirectional != (kind%2 == 1) {
			continue
		}
		what := fmt.Sprintf("stream %d to %d, seen by the %s: %v %v: %s", s.ID, s.Last, view, s.Blame, s.Candidates, s.Proof)
		require.NotEmpty(t, s.Proof, what)
		for id := s.ID; id <= s.Last; id += 4 {
			listed[id] = true
			p, ok := ids[id]
			require.True(t, ok, what)
			what := fmt.Sprintf("%s\n%v\nheld: %v", what, p, kept[id])
			truth := p.truth()
			class := strings.Join(truth, " and ")
			if !s.Complete.IsZero() {
				class = "complete on the wire"
			}
			share.add(fmt.Sprintf("%s, seen by the %s", class, view), s.Blame == ledger.BlameUnknown)
			switch s.Blame {
			case ledger.BlameUnknown:
				continue
			case ledger.BlameWire:
				require.Fail(t, "nothing is under way at rest", what)
			}
			require.True(t, kept[id], "not held: %s", what)
			blamed := us
			if s.Blame == ledger.BlamePeerApp {
				blamed = them
			}
			require.Equal(t, []string{blamed}, truth, what)
		}
	}
	for id := range kept {
		require.True(t, listed[id], "stream %d is held and not listed by the %s: %v", id, view, ids[id])
	}
}

// inFakeTime plays d on a network that loses packets once the handshake is done.
func (d deal) inFakeTime(t *testing.T, loss float64, reorder bool, share *unknowns) {
	synctest.Test(t, func(t *testing.T) {
		var on atomic.Bool
		network := lossy(d.seed, loss, reorder)
		if drop := network.Drop; drop != nil {
			network.Drop = func(p simnet.Packet) bool { return on.Load() && drop(p) }
		}
		client, server := pair(t, network.Pair, &matrixConf)
		on.Store(true)
		d.play(t, client, server, func() {
			time.Sleep(5 * time.Minute)
			synctest.Wait()
		}, share)
	})
}

// full says whether to play the whole matrix, not a sample.
var full = os.Getenv("QUICLIFE_LEDGER") == "full"

var networks = []struct {
	name    string
	loss    float64
	reorder bool
}{{"no loss", 0, false}, {"reordering", 0, true}, {"5% loss, reordering", 0.05, true}, {"20% loss, reordering", 0.2, true}}

// TestBlameIsRightForEachPairOfBehaviours plays each pair of behaviours on a
// connection of its own. There the frames tell the most.
func TestBlameIsRightForEachPairOfBehaviours(t *testing.T) {
	var share unknowns
	for n, network := range networks {
		t.Run(network.name, func(t *testing.T) {
			all := slices.Concat(pairings(false), pairings(true))
			for i, p := range all {
				if !full && (i+n)%23 != 0 || testing.Short() && i%5 != 0 {
					continue
				}
				t.Run(p.String(), func(t *testing.T) {
					deal{fromServer: i%2 == 1, pairings: []pairing{p}, seed: uint64(i)}.inFakeTime(t, network.loss, network.reorder, &share)
				})
			}
		})
	}
	share.log(t)
}

// TestBlameIsRightWhenStreamsShareAConnection plays all pairs of behaviours on
// connections with many streams.
func TestBlameIsRightWhenStreamsShareAConnection(t *testing.T) {
	var share unknowns
	for n, network := range networks {
		t.Run(network.name, func(t *testing.T) {
			for i, d := range deals(40, uint64(n)) {
				if !full && (i+n)%4 != 0 || testing.Short() && i%5 != 0 {
					continue
				}
				t.Run(fmt.Sprint(i), func(t *testing.T) { d.inFakeTime(t, network.loss, network.reorder, &share) })
			}
		})
	}
	share.log(t)
}

// TestBlameIsRightOnLoopback is in real time, over UDP.
func TestBlameIsRightOnLoopback(t *testing.T) {
	if testing.Short() {
		t.Skip("real time")
	}
	var share unknowns
	d := deals(150, 7)[0]
	client, server := pair(t, quictest.Loopback, &matrixConf)
	d.play(t, client, server, func() {
		var last [2]ledger.Report
		for same := 0; same < 20; time.Sleep(200 * time.Millisecond) { // MAX_STREAMS may be under way for 3 s
			now := [2]ledger.Report{client.ledger.Report(), server.ledger.Report()}
			if same++; now != last {
				same = 0
			}
			last = now
		}
	}, &share)
	share.log(t)
}

// deals shuffles all pairs of behaviours, and splits them into deals of size each.
func deals(size int, seed uint64) (all []deal) {
	random := rand.New(rand.NewPCG(seed, 1))
	every := slices.Concat(pairings(false), pairings(true))
	random.Shuffle(len(every), func(i, j int) { every[i], every[j] = every[j], every[i] })
	for some := range slices.Chunk(every, size) {
		some = slices.Clone(some)
		slices.SortStableFunc(some, func(a, b pairing) int {
			switch {
			case a.accepted == b.accepted:
				return 0
			case a.accepted:
				return -1
			}
			return 1
		})
		all = append(all, deal{fromServer: random.IntN(2) == 0, pairings: some, seed: random.Uint64()})
	}
	return all
}
