package quiclife_test

import (
	"io"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSmoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rc, rs := quictest.Net{}.Pair(t, nil, nil)
		c, s := quiclife.Wrap(rc), quiclife.Wrap(rs)
		str, err := c.OpenStreamSync(t.Context())
		require.NoError(t, err)
		str.Write([]byte("hello"))
		require.NoError(t, str.Close())
		in, err := s.AcceptStream(t.Context())
		require.NoError(t, err)
		b, err := io.ReadAll(in)
		require.NoError(t, err)
		require.Equal(t, "hello", string(b))
		in.Write(b)
		in.Close()
		b, err = io.ReadAll(str)
		require.NoError(t, err)
		require.Equal(t, "hello", string(b))
		t.Logf("%+v\n%+v", c.Stats(), s.Stats())
		synctest.Wait()
		require.Zero(t, quictest.Held(rc))
		require.Zero(t, quictest.Held(rs))
	})
}
