package ledger

import (
	"encoding/json"
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
	"time"
)

// This file reads the JSON of qlog: as quic-go writes it today, as earlier
// versions of quic-go wrote it, and as the drafts of qlog define it.

// A number is a JSON number, or a string that contains one.
type number float64

func (n *number) UnmarshalJSON(b []byte) error {
	s := strings.Trim(string(b), `"`)
	if s == "null" {
		return nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(v) {
		return fmt.Errorf("not a number: %.20s", s)
	}
	*n = number(v)
	return nil
}

// An integer is an exact number in the range of QUIC's integers. It is 0 if it is
// absent.
type integer int64

func (n *integer) UnmarshalJSON(b []byte) error {
	s := strings.Trim(string(b), `"`)
	if s == "null" {
		return nil
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		f, ferr := strconv.ParseFloat(s, 64)
		if v = int64(f); ferr != nil || float64(v) != f {
			return err
		}
	}
	if v < 0 || v > maxOffset {
		return fmt.Errorf("out of range: %d", v)
	}
	*n = integer(v)
	return nil
}

// text is a string, or the JSON of another value where a string should be.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) != nil {
		s = string(b)
	}
	if s != "null" {
		*t = text(brief(s))
	}
	return nil
}

// brief returns a copy of the first 256 bytes of s, so that s can be freed.
func brief(s string) string {
	return strings.Clone(strings.ToValidUTF8(s[:min(len(s), 256)], ""))
}

// A clock returns the times of events.
type clock struct {
	base     int64 // nanoseconds since 1970
	relative bool  // times are relative to the event before
}

func newClock(format string, reference json.RawMessage) clock {
	c := clock{relative: format == "delta" || format == "relative_to_previous_event"}
	if format == "absolute" {
		return c
	}
	var wall struct {
		Wall time.Time `json:"wall_clock_time"`
	}
	var ms number
	if json.Unmarshal(reference, &ms) == nil {
		c.base = nanoseconds(float64(ms))
	} else if json.Unmarshal(reference, &wall) == nil && !wall.Wall.IsZero() {
		c.base = wall.Wall.UnixNano()
	}
	return c
}

// at returns the time ms milliseconds after the base. It never returns 0, which
// means no time.
func (c *clock) at(ms float64) int64 {
	t := max(-4e18, min(c.base+nanoseconds(ms), 4e18))
	if c.relative {
		c.base = t
	}
	return max(t, 1)
}

// nanoseconds converts ms. It bounds the result, so that a sum of two does not
// overflow.
func nanoseconds(ms float64) int64 {
	return int64(max(-4e12, min(ms, 4e12)) * 1e6)
}

type eventData struct {
	Header struct {
		Type   string  `json:"packet_type"`
		Number integer `json:"packet_number"`
	} `json:"header"`
	Type   string      `json:"packet_type"` // its place in the first drafts
	Frames []frameData `json:"frames"`

	Initiator string `json:"initiator"`
	Owner     string `json:"owner"` // the earlier name of Initiator

	MaxData    integer `json:"initial_max_data"`
	DataLocal  integer `json:"initial_max_stream_data_bidi_local"`
	DataRemote integer `json:"initial_max_stream_data_bidi_remote"`
	DataUni    integer `json:"initial_max_stream_data_uni"`
	Streams    integer `json:"initial_max_streams_bidi"`
	StreamsUni integer `json:"initial_max_streams_uni"`

	KeyType string   `json:"key_type"`
	Window  *integer `json:"congestion_window"`
	Flying  *integer `json:"bytes_in_flight"`

	StreamID   integer   `json:"stream_id"`
	StreamType string    `json:"stream_type"`
	Frame      frameData `json:"frame"`

	Local  endpoint `json:"local"`
	Remote endpoint `json:"remote"`

	ConnectionError  text `json:"connection_error"`
	ApplicationError text `json:"application_error"`
	ErrorCode        text `json:"error_code"`
	Reason           text `json:"reason"`
	Trigger          text `json:"trigger"`
	Tuple            text `json:"tuple_id"`
}

type frameData struct {
	Type     string  `json:"frame_type"`
	StreamID integer `json:"stream_id"`
	Offset   integer `json:"offset"`
	Length   integer `json:"length"`
	Raw      struct {
		Length  integer `json:"length"`
		Payload integer `json:"payload_length"`
	} `json:"raw"`
	Fin        bool         `json:"fin"`
	FinalSize  integer      `json:"final_size"`
	Reliable   integer      `json:"reliable_size"`
	Code       codeText     `json:"error_code"`
	Maximum    integer      `json:"maximum"`
	Limit      integer      `json:"limit"`
	StreamType string       `json:"stream_type"`
	Acked      [][]integer  `json:"acked_ranges"`
	Headers    []headerData `json:"headers"`
}

type headerData struct {
	Name  text `json:"name"`
	Value text `json:"value"`
}

// codeText is an error code. Some writers write its name instead. We read a name
// as 0.
type codeText uint64

func (c *codeText) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseUint(strings.Trim(string(b), `"`), 10, 64)
	if err == nil {
		*c = codeText(v)
	}
	return nil
}

// An endpoint is an IP address with a port.
type endpoint string

func (e *endpoint) UnmarshalJSON(b []byte) error {
	type address struct {
		IP   text    `json:"ip"`
		Port integer `json:"port"`
	}
	var v struct {
		V4 address `json:"address_v4"`
		V6 address `json:"address_v6"`
	}
	if json.Unmarshal(b, &v) != nil {
		return nil // redacted, or in another form; addresses are only shown
	}
	for _, a := range []address{v.V4, v.V6} {
		if a.IP != "" {
			*e = endpoint(net.JoinHostPort(string(a.IP), strconv.FormatInt(int64(a.Port), 10)))
			return nil
		}
	}
	return nil
}

// isKnown reports whether events with this name matter.
func isKnown(name string) bool {
	_, name, _ = strings.Cut(name, ":")
	switch name {
	case "packet_sent", "packet_received", "packet_lost", "metrics_updated", "parameters_set", "parameters_restored",
		"key_updated", "key_discarded", "key_retired", "connection_started", "tuple_assigned", "connection_closed",
		"frame_created", "frame_parsed", "stream_type_set":
		return true
	}
	return false
}

// read applies a known event. It returns whether the event may change a count or
// a blame.
func (c *Conn) read(name string, d *eventData, at int64) (matters bool) {
	_, name, _ = strings.Cut(name, ":")
	e := event{at: at, sent: name == "packet_sent"}
	if d.Header.Type == "" {
		d.Header.Type = d.Type
	}
	isData := d.Header.Type == "1RTT" || d.Header.Type == "0RTT"
	if d.Initiator == "" {
		d.Initiator = d.Owner
	}
	switch name {
	case "packet_sent", "packet_received":
		if d.Header.Type == "retry" && !e.sent {
			c.apply(event{op: opRetry})
		}
		if !isData {
			return false
		}
		e.pn = int64(d.Header.Number)
		return c.readFrames(e, d.Frames)
	case "packet_lost":
		if isData {
			e.op, e.n1, e.n2 = opLost, int64(d.Header.Number), int64(d.Header.Number)
			c.apply(e)
		}
		return false
	case "metrics_updated": // it contains only the values that have changed
		if d.Window != nil {
			c.window = int64(*d.Window)
		}
		if d.Flying != nil {
			c.flying = int64(*d.Flying)
		}
		c.apply(event{op: opMetrics, n1: c.window, n2: c.flying})
		return false
	case "parameters_set", "parameters_restored":
		e.op, e.sent = opParameters, d.Initiator == "local"
		if name == "parameters_restored" {
			e.op = opRestored
		}
		e.params = &parameters{
			maxData: int64(d.MaxData), dataLocal: int64(d.DataLocal), dataRemote: int64(d.DataRemote), data: int64(d.DataUni),
			streams: int64(d.Streams), streamsUni: int64(d.StreamsUni),
		}
	case "key_updated", "key_discarded", "key_retired":
		switch {
		case d.KeyType == "client_0rtt_secret" && name == "key_updated":
			e.op = opEarlyKeys
		case d.KeyType == "client_0rtt_secret":
			e.op = opEarlyDone
		case d.KeyType == "client_1rtt_secret" && name == "key_updated":
			e.op = opKeys
		}
	case "connection_started", "tuple_assigned":
		if d.Tuple == "" && d.Remote != "" {
			c.setAddresses(string(d.Local), string(d.Remote))
		}
		return false
	case "connection_closed":
		e.op, e.text = opClosed, d.closed()
	case "frame_created", "frame_parsed":
		var r requestLine
		for _, h := range d.Frame.Headers {
			r.add(string(h.Name), string(h.Value))
		}
		if e.text = r.label(); e.text != "" {
			e.op, e.id = opLabel, int64(d.StreamID)
		}
	case "stream_type_set":
		e.op, e.id, e.text = opLabel, int64(d.StreamID), "http3 "+brief(d.StreamType)
	}
	if e.op == opNone {
		return false
	}
	c.apply(e)
	return true
}

func (d *eventData) closed() string {
	who := "we closed it"
	if d.Initiator == "remote" {
		who = "the peer closed it"
	}
	code := string(d.ErrorCode)
	switch {
	case d.ApplicationError != "":
		if code == "" {
			code = string(d.ApplicationError)
		}
		return strings.TrimSpace(fmt.Sprintf("%s: application error %s %s", who, code, d.Reason))
	case d.ConnectionError != "":
		return strings.TrimSpace(fmt.Sprintf("%s: %s %s", who, d.ConnectionError, d.Reason))
	case d.Trigger != "":
		return strings.ReplaceAll(string(d.Trigger), "_", " ")
	}
	return who
}

// readFrames applies the frames of a packet. It returns whether any of them
// matters.
func (c *Conn) readFrames(packet event, frames []frameData) (matters bool) {
	for i := range frames {
		f := &frames[i]
		e := packet
		e.id, e.code = int64(f.StreamID), uint64(f.Code)
		e.uni = f.StreamType == "unidirectional"
		switch f.Type {
		case "stream":
			length := f.Length
			if length == 0 {
				length = f.Raw.Payload
			}
			if length == 0 {
				length = f.Raw.Length
			}
			e.op, e.n1, e.n2, e.fin = opStream, int64(f.Offset), int64(length), f.Fin
		case "ack":
			if e.sent {
				continue
			}
			e.op = opAcked
			for _, r := range f.Acked {
				if len(r) > 0 {
					e.n1, e.n2 = int64(r[0]), int64(r[len(r)-1])
					c.apply(e)
				}
			}
			matters = true
			continue
		case "reset_stream", "reset_stream_at":
			e.op, e.n1, e.n2 = opReset, int64(f.FinalSize), int64(f.Reliable)
		case "stop_sending":
			e.op = opStopSending
		case "max_stream_data":
			e.op, e.n1 = opMaxStreamData, int64(f.Maximum)
		case "stream_data_blocked":
			e.op = opStreamDataBlocked
		case "max_data":
			e.op, e.n1 = opMaxData, int64(f.Maximum)
		case "max_streams":
			e.op, e.n1 = opMaxStreams, int64(f.Maximum)
		case "streams_blocked":
			e.op, e.n1 = opStreamsBlocked, int64(f.Limit)
		default:
			continue
		}
		c.apply(e)
		matters = true
	}
	return matters
}
