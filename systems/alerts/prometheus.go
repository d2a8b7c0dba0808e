package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A prometheus is a Prometheus server that scrapes the programs.
type prometheus struct{ url string }

func startPrometheus(ctx context.Context, dir, rules string, targets []string, children *[]*child) (*prometheus, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	var config strings.Builder
	fmt.Fprintf(&config, "global: {scrape_interval: %v, scrape_timeout: %[1]v, evaluation_interval: %[1]v}\n", scraped)
	config.WriteString("rule_files: [alerts.yml]\nscrape_configs:\n")
	for i, target := range targets {
		fmt.Fprintf(&config, "  - {job_name: %s, static_configs: [{targets: ['%s']}]}\n", programs[i].name, target)
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "alerts.yml"), []byte(rules), 0o600),
		os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config.String()), 0o600),
	); err != nil {
		return nil, err
	}
	c, err := startChild(ctx, "prometheus", "prometheus",
		"--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+addr,
	)
	if err != nil {
		return nil, err
	}
	*children = append(*children, c)
	_, err = c.await(ctx, "(Server is ready to receive web requests)")
	return &prometheus{"http://" + addr}, err
}

// freeAddr returns a loopback address that nobody listens at.
func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// A series holds the values that Prometheus has for one set of labels.
type series struct {
	Metric map[string]string
	Value  point   // the answer to an instant query
	Values []point // the answer to a range query
}

// A point is a time in seconds, and a value as text.
type point [2]any

func (p point) at() float64 { return p[0].(float64) }

func (p point) value() float64 {
	v, err := strconv.ParseFloat(p[1].(string), 64)
	if err != nil {
		panic(err) // cannot happen: Prometheus writes floats
	}
	return v
}

func (p *prometheus) get(ctx context.Context, path string, query url.Values) ([]series, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		Status, Error string
		Data          struct{ Result []series }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if answer.Status != "success" {
		return nil, fmt.Errorf("prometheus: %s: %s", query.Get("query"), answer.Error)
	}
	return answer.Data.Result, nil
}

func (p *prometheus) query(ctx context.Context, expr string) ([]series, error) {
	return p.get(ctx, "/api/v1/query", url.Values{"query": {expr}})
}

// fired returns when each alert first fired. It looks back as far as over.
func (p *prometheus) fired(ctx context.Context, over time.Duration) (map[event]time.Time, error) {
	found, err := p.query(ctx, fmt.Sprintf(`ALERTS{alertstate="firing"}[%dms]`, over.Milliseconds()))
	first := make(map[event]time.Time)
	for _, s := range found {
		e, at := event{s.Metric["alertname"], s.Metric["job"]}, time.UnixMilli(int64(1000*s.Values[0].at()))
		if before, ok := first[e]; !ok || at.Before(before) {
			first[e] = at
		}
	}
	return first, err
}

// check returns an error if a program did not work or was not scraped, because
// then a silent alert means nothing. On a busy machine a scrape may fail now and
// then.
func (p *prometheus) check(ctx context.Context, over time.Duration) error {
	for _, program := range programs {
		for _, expr := range []string{
			`avg_over_time(up{job=%q}[%dms]) > 0.8`,
			`sum(increase(quiclife_streams_ended_total{job=%q}[%dms])) > 1000`,
		} {
			expr = fmt.Sprintf(expr, program.name, over.Milliseconds())
			found, err := p.query(ctx, expr)
			if err != nil {
				return err
			}
			if len(found) == 0 {
				return fmt.Errorf("the alerts of the %s program mean nothing, because this is not true: %s", program.name, expr)
			}
		}
	}
	return nil
}
