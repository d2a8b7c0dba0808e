//go:build race

package leaktest_test

func init() { cleanTests = 400 } // they take three times as long
