module github.com/quiclife/quiclife/mutation

go 1.26.0
