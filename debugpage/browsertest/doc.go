// Package browsertest tests the page of package debugpage in a real browser. It
// needs Debian's chromium. It is a module of its own, so that no other module
// depends on the packages that control the browser.
package browsertest
