package quiclife

import "github.com/quic-go/quic-go"

// Names that have nothing to do with streams are quic-go's own: the types are
// aliases, and the constants and variables have the same values.
// TestNoNameOfQuicGosIsMissing fails when quic-go has a name that is missing
// here.

type (
	// ApplicationError is quic-go's [quic.ApplicationError].
	ApplicationError = quic.ApplicationError
	// ApplicationErrorCode is quic-go's [quic.ApplicationErrorCode].
	ApplicationErrorCode = quic.ApplicationErrorCode
	// ClientInfo is quic-go's [quic.ClientInfo].
	ClientInfo = quic.ClientInfo
	// ClientToken is quic-go's [quic.ClientToken].
	ClientToken = quic.ClientToken
	// Config is quic-go's [quic.Config]. Its AllowConnectionWindowIncrease
	// callback still takes a *quic.Conn, because Config is an alias.
	Config = quic.Config
	// ConnectionID is quic-go's [quic.ConnectionID].
	ConnectionID = quic.ConnectionID
	// ConnectionIDGenerator is quic-go's [quic.ConnectionIDGenerator].
	ConnectionIDGenerator = quic.ConnectionIDGenerator
	// ConnectionState is quic-go's [quic.ConnectionState].
	ConnectionState = quic.ConnectionState
	// ConnectionStats is quic-go's [quic.ConnectionStats]: the figures of the
	// transport. For streams see [Stats].
	ConnectionStats = quic.ConnectionStats
	// DatagramTooLargeError is quic-go's [quic.DatagramTooLargeError].
	DatagramTooLargeError = quic.DatagramTooLargeError
	// HandshakeTimeoutError is quic-go's [quic.HandshakeTimeoutError].
	HandshakeTimeoutError = quic.HandshakeTimeoutError
	// IdleTimeoutError is quic-go's [quic.IdleTimeoutError].
	IdleTimeoutError = quic.IdleTimeoutError
	// OOBCapablePacketConn is quic-go's [quic.OOBCapablePacketConn].
	OOBCapablePacketConn = quic.OOBCapablePacketConn
	// Path is quic-go's [quic.Path].
	Path = quic.Path
	// StatelessResetError is quic-go's [quic.StatelessResetError].
	StatelessResetError = quic.StatelessResetError
	// StatelessResetKey is quic-go's [quic.StatelessResetKey].
	StatelessResetKey = quic.StatelessResetKey
	// StreamError is quic-go's [quic.StreamError].
	StreamError = quic.StreamError
	// StreamErrorCode is quic-go's [quic.StreamErrorCode].
	StreamErrorCode = quic.StreamErrorCode
	// StreamID is quic-go's [quic.StreamID].
	StreamID = quic.StreamID
	// StreamLimitReachedError is quic-go's [quic.StreamLimitReachedError].
	// Opening a stream here fails with a [*LimitError], which matches it.
	StreamLimitReachedError = quic.StreamLimitReachedError
	// TokenGeneratorKey is quic-go's [quic.TokenGeneratorKey].
	TokenGeneratorKey = quic.TokenGeneratorKey
	// TokenStore is quic-go's [quic.TokenStore].
	TokenStore = quic.TokenStore
	// TransportError is quic-go's [quic.TransportError].
	TransportError = quic.TransportError
	// TransportErrorCode is quic-go's [quic.TransportErrorCode].
	TransportErrorCode = quic.TransportErrorCode
	// Version is quic-go's [quic.Version].
	Version = quic.Version
	// VersionNegotiationError is quic-go's [quic.VersionNegotiationError].
	VersionNegotiationError = quic.VersionNegotiationError
)

// The transport error codes of RFC 9000, section 20.1, as quic-go names them.
const (
	NoError                   = quic.NoError
	InternalError             = quic.InternalError
	ConnectionRefused         = quic.ConnectionRefused
	FlowControlError          = quic.FlowControlError
	StreamLimitError          = quic.StreamLimitError
	StreamStateError          = quic.StreamStateError
	FinalSizeError            = quic.FinalSizeError
	FrameEncodingError        = quic.FrameEncodingError
	TransportParameterError   = quic.TransportParameterError
	ConnectionIDLimitError    = quic.ConnectionIDLimitError
	ProtocolViolation         = quic.ProtocolViolation
	InvalidToken              = quic.InvalidToken
	ApplicationErrorErrorCode = quic.ApplicationErrorErrorCode
	CryptoBufferExceeded      = quic.CryptoBufferExceeded
	KeyUpdateError            = quic.KeyUpdateError
	AEADLimitReached          = quic.AEADLimitReached
	NoViablePathError         = quic.NoViablePathError
)

// The QUIC versions.
const (
	Version1 = quic.Version1 // RFC 9000
	Version2 = quic.Version2 // RFC 9369
)

// The errors of quic-go. Match them with [errors.Is] as before.
var (
	Err0RTTRejected      = quic.Err0RTTRejected
	ErrPathClosed        = quic.ErrPathClosed
	ErrPathNotValidated  = quic.ErrPathNotValidated
	ErrServerClosed      = quic.ErrServerClosed
	ErrStreamClosed      = quic.ErrStreamClosed
	ErrTransportClosed   = quic.ErrTransportClosed
	ErrWouldBlock        = quic.ErrWouldBlock
	ErrWriteLimitReached = quic.ErrWriteLimitReached
)

// QUICVersionContextKey is quic-go's [quic.QUICVersionContextKey].
var QUICVersionContextKey = quic.QUICVersionContextKey

// ConnectionIDFromBytes is quic-go's [quic.ConnectionIDFromBytes].
func ConnectionIDFromBytes(b []byte) ConnectionID { return quic.ConnectionIDFromBytes(b) }

// NewLRUTokenStore is quic-go's [quic.NewLRUTokenStore].
func NewLRUTokenStore(maxOrigins, tokensPerOrigin int) TokenStore {
	return quic.NewLRUTokenStore(maxOrigins, tokensPerOrigin)
}

// SupportedVersions is quic-go's [quic.SupportedVersions].
func SupportedVersions() []Version { return quic.SupportedVersions() }
