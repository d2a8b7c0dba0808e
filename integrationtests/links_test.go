package integrationtests

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	fenced    = regexp.MustCompile("(?ms)^ *```.*?^ *```")
	inline    = regexp.MustCompile("`[^`\n]*`")
	linked    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading   = regexp.MustCompile(`(?m)^#+ +(.*)$`)
	linkText  = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	notInSlug = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// TestLinksOfDocuments: each relative link in a document leads to a file, and to
// a heading of it if it names one.
func TestLinksOfDocuments(t *testing.T) {
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	documents := 0
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git":
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".md":
			return nil
		}
		documents++
		name, _ := filepath.Rel(root, path)
		text, _ := document(t, path)
		for _, m := range linked.FindAllStringSubmatch(inline.ReplaceAllString(text, ""), -1) {
			if !strings.Contains(m[1], ":") { // else it is not relative
				checkLink(t, name, path, m[1])
			}
		}
		return nil
	}))
	require.Greater(t, documents, 10, "the documents were not found")
}

// checkLink checks a link in the document at path.
func checkLink(t *testing.T, name, path, link string) {
	to, anchor, _ := strings.Cut(link, "#")
	target := path
	if to != "" {
		target = filepath.Join(filepath.Dir(path), to)
	}
	if _, err := os.Stat(target); err != nil {
		t.Errorf("%s: the link %s leads to no file", name, link)
		return
	}
	if anchor == "" {
		return
	}
	if _, anchors := document(t, target); !anchors[anchor] {
		t.Errorf("%s: the link %s leads to no heading", name, link)
	}
}

// document returns a document without its code blocks, and the anchors that
// GitHub gives to its headings.
func document(t *testing.T, path string) (text string, anchors map[string]bool) {
	source, err := os.ReadFile(path)
	require.NoError(t, err)
	text = fenced.ReplaceAllString(string(source), "")
	anchors = make(map[string]bool)
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		h := strings.ToLower(linkText.ReplaceAllString(m[1], "$1"))
		anchors[strings.ReplaceAll(notInSlug.ReplaceAllString(h, ""), " ", "-")] = true
	}
	return text, anchors
}
