// Package browsertest has a real browser look at the page of package debugpage.
// It needs Debian's chromium, and is a module of its own, so that nobody else
// depends on what drives that.
package browsertest
