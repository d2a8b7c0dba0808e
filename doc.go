// Package quiclife is a drop-in for quic-go that owns the life of every stream.
package quiclife
