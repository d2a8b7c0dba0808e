package main

// unistream breaks unistream.go.
var unistream = []mutation{
	{
		name: "SendStream.Write: KeepAlive dropped",
		old: `func (s *SendStream) Write(p []byte) (int, error) {
	n, err := s.st.write(p)
	runtime.KeepAlive(s)
	return n, err
}
`,
		new: `func (s *SendStream) Write(p []byte) (int, error) {
	n, err := s.st.write(p)
	return n, err
}
`,
	},
	{
		name: "SendStream.Close: KeepAlive dropped",
		old: `func (s *SendStream) Close() error {
	err := s.st.close()
	runtime.KeepAlive(s)
	return err
}
`,
		new: `func (s *SendStream) Close() error {
	err := s.st.close()
	return err
}
`,
	},
	{
		name: "SendStream.Release: KeepAlive dropped",
		old: `func (s *SendStream) Release() {
	s.st.release(s.st.conn.guard.Codes.Release)
	runtime.KeepAlive(s)
}
`,
		new: `func (s *SendStream) Release() {
	s.st.release(s.st.conn.guard.Codes.Release)
}
`,
	},
	{
		name: "ReceiveStream.Read: KeepAlive dropped",
		old: `func (s *ReceiveStream) Read(p []byte) (int, error) {
	s.st.willRead()
	n, err := s.raw.Read(p)
	s.st.didRead(n, err)
	runtime.KeepAlive(s)
	return n, err
}
`,
		new: `func (s *ReceiveStream) Read(p []byte) (int, error) {
	s.st.willRead()
	n, err := s.raw.Read(p)
	s.st.didRead(n, err)
	return n, err
}
`,
	},
	{
		name: "ReceiveStream: watchFinalSize dropped",
		old: `	s.st.watchFinalSize()
`,
		new:   "",
		alone: true,
	},
	{
		name: "SendStream.SetReliableBoundary: past the accounting",
		old:  "{ s.st.setReliableBoundary() }",
		new:  "{ s.raw.SetReliableBoundary() }",
	},
	{
		name: "ReceiveStream.ReleaseStreamCredit: nothing",
		old:  "{ s.st.returnCredit() }",
		new:  "{}",
	},
	{
		name: "SendStream.Write: the plain Write",
		old: `	n, err := s.st.write(p)
`,
		new: `	n, err := s.raw.Write(p)
`,
	},
}
