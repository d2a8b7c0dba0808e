package streams

// An op is what a call does with a stream that it gets.
type op uint8

const (
	opNone  op = iota // neither reads nor writes
	opRead            // reads as much as was asked for; an error ends the receive half
	opScan            // the same, but returns false in place of an error
	opDrain           // reads to the end, or fails
	opWrite           // an error ends the send half
	opWrapR           // returns something that reads from it
	opWrapW           // returns something that writes to it
	opClose           // ends the send half; an error says that there was nothing to end
)

// known says what functions of the standard library do with each argument.
var known = map[string]map[int]op{
	"io.ReadFull":                 {0: opRead},
	"io.ReadAtLeast":              {0: opRead},
	"io.ReadAll":                  {0: opDrain},
	"io/ioutil.ReadAll":           {0: opDrain},
	"io.Copy":                     {0: opWrite, 1: opDrain},
	"io.CopyBuffer":               {0: opWrite, 1: opDrain},
	"io.CopyN":                    {0: opWrite, 1: opRead},
	"io.WriteString":              {0: opWrite},
	"io.LimitReader":              {0: opWrapR},
	"io.TeeReader":                {0: opWrapR, 1: opWrapW},
	"fmt.Fprint":                  {0: opWrite},
	"fmt.Fprintf":                 {0: opWrite},
	"fmt.Fprintln":                {0: opWrite},
	"fmt.Fscan":                   {0: opRead},
	"fmt.Fscanf":                  {0: opRead},
	"fmt.Fscanln":                 {0: opRead},
	"encoding/binary.Read":        {0: opRead},
	"encoding/binary.Write":       {0: opWrite},
	"encoding/binary.ReadUvarint": {0: opRead},
	"encoding/binary.ReadVarint":  {0: opRead},
	"bufio.NewReader":             {0: opWrapR},
	"bufio.NewReaderSize":         {0: opWrapR},
	"bufio.NewWriter":             {0: opWrapW},
	"bufio.NewWriterSize":         {0: opWrapW},
	"bufio.NewScanner":            {0: opWrapR},
	"bufio.NewReadWriter":         {0: opWrapR, 1: opWrapW},
	"encoding/json.NewDecoder":    {0: opWrapR},
	"encoding/json.NewEncoder":    {0: opWrapW},
	"encoding/gob.NewDecoder":     {0: opWrapR},
	"encoding/gob.NewEncoder":     {0: opWrapW},
	"encoding/xml.NewDecoder":     {0: opWrapR},
	"encoding/xml.NewEncoder":     {0: opWrapW},
	"encoding/csv.NewReader":      {0: opWrapR},
	"encoding/csv.NewWriter":      {0: opWrapW},
}

// wrappers are the types that the wrapping functions return.
var wrappers = map[string]bool{
	"bufio.Reader": true, "bufio.Writer": true, "bufio.Scanner": true, "bufio.ReadWriter": true,
	"encoding/json.Decoder": true, "encoding/json.Encoder": true, "encoding/gob.Decoder": true, "encoding/gob.Encoder": true,
	"encoding/xml.Decoder": true, "encoding/xml.Encoder": true, "encoding/csv.Reader": true, "encoding/csv.Writer": true,
	"io.LimitedReader": true,
}

// wrapperMethods says what the methods of the wrappers do with the stream.
// Methods that are not here do nothing with it.
var wrapperMethods = map[string]op{
	"Read": opRead, "ReadByte": opRead, "ReadBytes": opRead, "ReadLine": opRead, "ReadRune": opRead, "ReadSlice": opRead,
	"ReadString": opRead, "Peek": opRead, "Discard": opRead, "Decode": opRead, "DecodeElement": opRead, "Token": opRead,
	"More": opScan, "Scan": opScan, "WriteTo": opDrain, "ReadAll": opDrain,
	"Write": opWrite, "WriteByte": opWrite, "WriteRune": opWrite, "WriteString": opWrite, "WriteAll": opWrite, "Flush": opWrite,
	"Encode": opWrite, "EncodeToken": opWrite, "EncodeElement": opWrite, "ReadFrom": opWrite,
}
