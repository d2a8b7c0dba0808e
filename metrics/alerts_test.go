package metrics

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

// exported returns the names of all metrics.
func exported(t *testing.T) map[string]bool {
	t.Helper()
	families, err := registered(t, NewCollector(&quiclife.Guard{}, "")).Gather()
	require.NoError(t, err)
	names := make(map[string]bool)
	for _, f := range families {
		names[f.GetName()] = true
	}
	return names
}

func registered(t *testing.T, c prometheus.Collector) *prometheus.Registry {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	require.NoError(t, r.Register(c))
	return r
}

// TestAlertsFireWhenTheyShould: alerts_test.yml says when they fire, and when
// they are silent. promtool is in Debian's package prometheus.
func TestAlertsFireWhenTheyShould(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed")
	}
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		out, err := exec.Command(promtool, args...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
}

// TestEachAlertIsTested: in alerts_test.yml each alert fires at least once.
func TestEachAlertIsTested(t *testing.T) {
	rules, err := os.ReadFile("alerts.yml")
	require.NoError(t, err)
	tests, err := os.ReadFile("alerts_test.yml")
	require.NoError(t, err)
	alerts := regexp.MustCompile(`- alert: (\w+)`).FindAllSubmatch(rules, -1)
	require.NotEmpty(t, alerts)
	for _, alert := range alerts {
		fires := regexp.MustCompile(`alertname: ` + string(alert[1]) + `\n\s+eval_time: \w+\n\s+exp_alerts:`)
		require.Regexp(t, fires, string(tests), "no test sees the alert fire")
	}
}

// TestWhatIsAskedForIsExported: the collector exports each metric that an alert
// or a panel uses.
func TestWhatIsAskedForIsExported(t *testing.T) {
	names := exported(t)
	for _, file := range []string{"alerts.yml", "alerts_test.yml", "dashboard.json"} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		asked := regexp.MustCompile(`\bquiclife_\w+`).FindAllString(string(text), -1)
		require.NotEmpty(t, asked)
		for _, name := range asked {
			require.True(t, names[name], "%s asks for %s", file, name)
		}
	}
}

// TestDashboardShowsAllMetrics: it also checks that no two panels overlap.
func TestDashboardShowsAllMetrics(t *testing.T) {
	text, err := os.ReadFile("dashboard.json")
	require.NoError(t, err)
	var board struct {
		Panels []struct {
			ID                 int
			Title, Description string
			GridPos            struct{ X, Y, W, H int }
			Targets            []struct{ Expr, LegendFormat string }
		}
	}
	require.NoError(t, json.Unmarshal(text, &board))
	taken := make(map[[2]int]string)
	asked := ""
	for _, p := range board.Panels {
		require.NotEmpty(t, p.Title)
		require.NotEmpty(t, p.Description, p.Title)
		require.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				require.Empty(t, taken[[2]int{x, y}], "%s lies on it", p.Title)
				taken[[2]int{x, y}] = p.Title
			}
		}
		for _, target := range p.Targets {
			asked += target.Expr + "\n"
		}
	}
	for name := range exported(t) {
		require.Contains(t, asked, name+"{", "no panel shows %s", name)
	}
}
