package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// answerMost is the most of an answer that is read, in bytes: enough for the
// outcome of each item of an Elasticsearch bulk request.
const answerMost = 4 << 20

// HTTP are the options that all sinks over HTTP share.
type HTTP struct {
	Headers map[string]string // e.g. Authorization; values are secrets and appear in no error
	TLS     TLS
}

// client posts to one URL.
type client struct {
	url     string
	headers map[string]string
	http    *http.Client
}

// newClient checks the options. Path is taken when the address has none.
func newClient(address, path string, o HTTP) (*client, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("address: use a URL such as https://host:port" + path) // it may hold a password
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = path
	}
	tls, err := o.TLS.Config()
	if err != nil {
		return nil, err
	}
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: tls, ForceAttemptHTTP2: true,
		MaxIdleConnsPerHost: 1, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: defaultTimeout}
	return &client{u.String(), o.Headers, &http.Client{Transport: t,
		// A redirected POST would become a GET without a body.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

// post sends one request and returns the answer when its status is 2xx.
func (c *client) post(ctx context.Context, contentType string, body []byte, headers map[string]string) ([]byte, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	q.Header.Set("Content-Type", contentType)
	q.Header.Set("User-Agent", "jindan")
	for _, h := range []map[string]string{c.headers, headers} {
		for k, v := range h {
			q.Header.Set(k, v)
		}
	}
	p, err := c.http.Do(q)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL, which may hold a password
		}
		return nil, fmt.Errorf("post to %s: %w", q.URL.Host, err)
	}
	defer p.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(p.Body, answerMost))
	if p.StatusCode/100 == 2 {
		if err != nil {
			return nil, fmt.Errorf("read the answer of %s: %w", q.URL.Host, err)
		}
		return answer, nil
	}
	return nil, refusal(p, fmt.Errorf("%s answered %s: %s", q.URL.Host, p.Status, clip(string(answer))))
}

// refusal sorts a status that is not 2xx. Refused for good are the statuses 4xx
// that blame the request. Those that blame the sender's credentials are retried:
// a renewed token must not find an empty spool.
func refusal(p *http.Response, err error) error {
	switch p.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return later(p, err)
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return err
	}
	if p.StatusCode/100 == 4 {
		return &RefusedError{err}
	}
	return err // 5xx, and redirections, which a change of configuration answers
}

// later reads Retry-After (RFC 9110 §10.2.3: seconds or a date).
func later(p *http.Response, err error) error {
	v := p.Header.Get("Retry-After")
	if n, e := strconv.Atoi(v); e == nil && n > 0 {
		return &LaterError{err, time.Duration(min(n, 86400)) * time.Second}
	}
	if at, e := http.ParseTime(v); e == nil {
		return &LaterError{err, time.Until(at)}
	}
	return err
}

// Close gives up idle connections.
func (c *client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}
