package quiclife

import "errors"

// ErrShutdown is returned for streams that are to be opened or accepted on a
// connection once its Shutdown has begun.
var ErrShutdown = errors.New("quiclife: connection is shutting down")
