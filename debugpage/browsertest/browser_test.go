package browsertest

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

var (
	pictures = flag.String("pictures", "", "write pictures of the page into this `directory`")
	update   = flag.Bool("update-pictures", false, "draw docs/pictures/page.png and page-dark.png anew")
)

// browser starts the browser when the first test needs it.
var browser = sync.OnceValue(func() context.Context {
	// GitHub's Ubuntu has both, but there AppArmor denies chromium its sandbox.
	path, err := exec.LookPath("google-chrome")
	if err != nil {
		path, err = exec.LookPath("chromium")
	}
	if err != nil {
		return nil
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox) // as root it does not run with a sandbox
	}
	ctx, _ := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, stopBrowser = chromedp.NewContext(ctx)
	if err := chromedp.Do(ctx); err != nil {
		panic(err)
	}
	return ctx
})

var stopBrowser = func() {}

func TestMain(m *testing.M) {
	status := m.Run()
	stopBrowser()
	os.Exit(status)
}

// A tab is a tab of the browser. It fails the test if the page has an error, or if
// it makes a request to any server but its own.
type tab struct {
	t   *testing.T
	ctx context.Context
	url string // of the page

	mu       sync.Mutex // guards the field below
	requests []string
}

func open(t *testing.T, server *httptest.Server) *tab {
	t.Helper()
	if browser() == nil {
		t.Skip("neither chromium nor google-chrome is installed")
	}
	ctx, end := chromedp.NewContext(browser())
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	b := &tab{t: t, ctx: ctx, url: server.URL + "/debug/quiclife"}
	require.NoError(t, chromedp.Listen(ctx, func(event any) {
		switch e := event.(type) {
		case *network.EventRequestWillBeSent:
			b.mu.Lock()
			defer b.mu.Unlock()
			b.requests = append(b.requests, e.Request.URL)
			if !strings.HasPrefix(e.Request.URL, b.url) {
				t.Errorf("the page asks for %s", e.Request.URL)
			}
		case *runtime.EventConsoleAPICalled:
			t.Errorf("on the console: %s", e.Args[0].Value)
		case *runtime.EventExceptionThrown:
			t.Errorf("exception: %s", e.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			t.Errorf("%s: %s", e.Entry.Level, e.Entry.Text)
		case *page.EventJavascriptDialogOpening:
			t.Errorf("a dialog: %s", e.Message)
		}
	}))
	t.Cleanup(func() { // after an empty page no more events come
		b.do("the end", chromedp.Navigate("about:blank"))
		cancel()
		end()
	})
	_, err := chromedp.Call(ctx, network.Enable, network.EnableParams{})
	require.NoError(t, err)
	_, err = chromedp.Call(ctx, log.Enable, cdp.Empty{})
	require.NoError(t, err)
	_, err = chromedp.Call(ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{
		Source: `document.addEventListener("securitypolicyviolation", e => console.error("against the policy: " + e.violatedDirective + " " + e.sample))`,
	})
	require.NoError(t, err)
	return b
}

func (b *tab) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	require.NoError(b.t, chromedp.Do(b.ctx, steps...), what)
}

// load loads the page with a query.
func (b *tab) load(query string) {
	b.t.Helper()
	b.do("loading "+query, chromedp.Navigate(b.url+query))
}

// follow clicks on the element that selector finds, and waits for the next page.
func (b *tab) follow(selector chromedp.CSS) {
	b.t.Helper()
	response, err := chromedp.RunResponse(b.ctx, chromedp.Click(selector))
	require.NoError(b.t, err, "following %s", selector)
	require.EqualValues(b.t, 200, response.Status)
}

// eval returns the value of a JavaScript expression.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	value, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	require.NoError(b.t, err, expression)
	return value
}

// column returns the texts of one column of a table. The table is in the section
// whose title begins with title, and the column has the given head.
func (b *tab) column(title, head string) []string {
	b.t.Helper()
	return eval[[]string](b, fmt.Sprintf(`(() => {
		const section = [...document.querySelectorAll("section")].find(s => s.querySelector("h2").textContent.startsWith(%q))
		const table = section.querySelector("table")
		const i = [...table.querySelectorAll("thead th")].findIndex(th => th.textContent === %q)
		return [...table.querySelectorAll("tbody tr")].map(tr => tr.children[i].innerText)
	})()`, title, head))
}

// TestBrowserFindsNothingWrong: for each query, the page has no error, obeys its
// policy, makes no request to another server, and uses its style sheet. The tab
// checks most of this.
func TestBrowserFindsNothingWrong(t *testing.T) {
	b := open(t, serve(t))
	for _, query := range []string{"", "?sort=opener", "?q=outgoing", "?q=%3Cscript%3Ealert(1)%3C/script%3E", "?format=text", "?format=json"} {
		b.load(query)
		require.NotContains(t, eval[string](b, "document.title"), "hostile", query)
		require.Zero(t, eval[int](b, `document.querySelectorAll("script, img, iframe, link").length`), query)
		if !strings.Contains(query, "format") {
			require.Equal(t, "grid", eval[string](b, `getComputedStyle(document.querySelector("dl")).display`), "the style")
		}
	}
	b.load("?q=" + hostile[1:7]) // finds the hostile name, which is shown as text
	require.Contains(t, eval[string](b, "document.body.innerText"), hostile)
}

func TestClickOnAHeadSortsTheRows(t *testing.T) {
	b := open(t, serve(t))
	b.load("")
	require.Equal(t, []string{"7", "3", "1"}, b.column("Open streams by opener", "count"))
	require.Equal(t, []string{"35", "30000", "20"}, b.column("Open streams by opener", "bytes"))
	b.follow(`a[href="?sort=bytes"]`)
	require.Equal(t, []string{"30000", "35", "20"}, b.column("Open streams by opener", "bytes"))
	require.Equal(t, "bytes", eval[string](b, `document.querySelector("th[aria-sort=descending]").innerText`))
	b.follow(`a[href="?sort=opener"]`)
	openers := b.column("Open streams by opener", "opened by")
	require.Contains(t, openers[0], "control")
	require.Contains(t, openers[2], "ping")

	before := b.column("Connections", "open")
	require.NotEqual(t, before[0], before[len(before)-1])
	b.follow(`a[href="?sort=remote"]`)
	remotes := b.column("Connections", "remote")
	require.IsIncreasing(t, remotes)
}

func TestFilterFormAndItsWayBack(t *testing.T) {
	b := open(t, serve(t))
	b.load("?sort=bytes")
	b.do("typing", chromedp.SendKeys(chromedp.CSS("input[name=q]"), "DOWNLOAD"))
	b.follow("form button")
	require.Equal(t, []string{"3"}, b.column("Open streams by opener", "count"))
	require.Len(t, b.column("Open streams, oldest first", "age"), 3)
	require.Equal(t, "bytes", eval[string](b, `document.querySelector("th[aria-sort]").innerText`), "the order is kept")
	b.follow("form a")
	require.Len(t, b.column("Open streams by opener", "count"), 3)

	require.NotContains(t, eval[string](b, `document.querySelector("details").innerText`), "/page_test.go")
	b.do("unfolding an opener", chromedp.Click(chromedp.CSS("summary")))
	require.Contains(t, eval[string](b, `document.querySelector("details").innerText`), "/page_test.go", "the whole path")
}

func TestPageRefreshesItself(t *testing.T) {
	b := open(t, serve(t))
	b.load("?q=ping")
	b.follow(`a[href*="refresh=5"]`)
	require.Contains(t, eval[string](b, "document.body.innerText"), "again every 5 s")
	b.load("?refresh=1&q=ping")
	loaded := func() int {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.requests)
	}
	before := loaded()
	require.Eventually(t, func() bool { return loaded() >= before+2 }, 20*time.Second, 50*time.Millisecond)
	b.do("reading", chromedp.WaitVisible(chromedp.CSS("input[name=q]")))
	require.Equal(t, "ping", eval[string](b, `document.querySelector("input[name=q]").value`))
}

// leastContrast returns the lowest contrast between a text and its background,
// and that text. The formula is that of the Web Content Accessibility Guidelines.
const leastContrast = `(() => {
	const rgb = color => color.match(/[\d.]+/g).map(Number)
	const light = color => rgb(color).slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).
		reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0)
	const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (rgb(c)[3] !== 0) return c } return "rgb(255, 255, 255)" }
	let least = [99, ""]
	const look = (e, pseudo, text) => {
		const [a, b] = [light(getComputedStyle(e, pseudo).color), light(behind(e))]
		const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05)
		if (contrast < least[0]) least = [contrast, text]
	}
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
	while (walk.nextNode()) {
		const e = walk.currentNode.parentElement
		if (walk.currentNode.data.trim() && e.checkVisibility()) look(e, null, walk.currentNode.data)
	}
	document.querySelectorAll("input").forEach(e => look(e, "::placeholder", e.placeholder))
	return least
})()`

// misaligned returns the heads that are not aligned like the cells below them.
const misaligned = `[...document.querySelectorAll("thead th")].filter(th =>
	[...th.closest("table").querySelectorAll("tbody tr")].some(tr => getComputedStyle(tr.children[th.cellIndex]).textAlign !== getComputedStyle(th).textAlign)).
	map(th => th.innerText)`

// TestPageFitsItsWindow: at 400 and 1,400 px, light and dark, the page does not
// scroll sideways, texts have enough contrast, and cells are aligned like their
// heads.
func TestPageFitsItsWindow(t *testing.T) {
	b := open(t, serve(t))
	for _, width := range []int64{400, 1400} {
		for _, scheme := range []string{"light", "dark"} {
			name := fmt.Sprintf("page-%d-%s", width, scheme)
			b.emulate(width, scheme)
			for _, query := range []string{"", "?q=download"} {
				b.load(query)
				require.Equal(t, width, eval[int64](b, "document.documentElement.scrollWidth"), "%s %s: the page scrolls sideways", name, query)
				contrast := eval[[]any](b, leastContrast)
				require.GreaterOrEqual(t, contrast[0], 4.5, "%s %s: contrast of %q", name, query, contrast[1])
				require.Empty(t, eval[[]string](b, misaligned), "%s %s: columns aligned otherwise than their heads", name, query)
			}
			b.load("")
			if *pictures != "" {
				b.picture(filepath.Join(*pictures, name+".png"))
			}
		}
	}
}

// emulate sets the width of the window, in pixels, and the color scheme.
func (b *tab) emulate(width int64, scheme string) {
	b.t.Helper()
	b.do("a window", chromedp.EmulateViewport(width, 900))
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	require.NoError(b.t, err)
}

// picture writes a picture of the whole page, in 256 colors.
func (b *tab) picture(file string) {
	b.t.Helper()
	shot, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	require.NoError(b.t, err)
	full, err := png.Decode(bytes.NewReader(shot))
	require.NoError(b.t, err)
	small := image.NewPaletted(full.Bounds(), commonColors(full))
	draw.Draw(small, small.Bounds(), full, full.Bounds().Min, draw.Src)
	f, err := os.Create(file)
	require.NoError(b.t, err)
	require.NoError(b.t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(f, small))
	require.NoError(b.t, f.Close())
}

// commonColors returns the 256 most common colors of a picture.
func commonColors(m image.Image) color.Palette {
	counts := make(map[color.Color]int)
	for y := m.Bounds().Min.Y; y < m.Bounds().Max.Y; y++ {
		for x := m.Bounds().Min.X; x < m.Bounds().Max.X; x++ {
			counts[m.At(x, y)]++
		}
	}
	colors := slices.SortedFunc(maps.Keys(counts), func(a, b color.Color) int { return counts[b] - counts[a] })
	return colors[:min(len(colors), 256)]
}

// TestPicturesOfTheDocumentation redraws the pictures if -update-pictures is set.
func TestPicturesOfTheDocumentation(t *testing.T) {
	if !*update {
		t.Skip("go test -run Pictures . -update-pictures")
	}
	b := open(t, serveExample(t))
	for scheme, name := range map[string]string{"light": "page.png", "dark": "page-dark.png"} {
		b.emulate(1400, scheme)
		b.load("")
		b.picture(filepath.Join("..", "..", "docs", "pictures", name))
	}
}
