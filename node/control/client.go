package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"time"
)

// ErrUnreachable is returned where no daemon answers.
var ErrUnreachable = errors.New("no clsync daemon answers")

// A Client asks the daemon behind a socket.
type Client struct {
	http http.Client
}

// NewClient returns a client; nothing is dialled before the first question.
func NewClient(socket string) *Client {
	return &Client{http.Client{
		Timeout: patienceOfServer + 10*time.Second,
		Transport: &http.Transport{
			// One question a program, mostly: a connection kept for another would
			// take the place of somebody else's.
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", socket)
				switch {
				case errors.Is(err, fs.ErrPermission):
					return nil, fmt.Errorf("%w: %w", ErrDenied, err)
				case err != nil:
					return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
				}
				return c, nil
			},
		},
	}}
}

// Status asks for the node's status.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.ask(ctx, http.MethodGet, "/v1/status", nil, &s)
}

// Nodes asks for all nodes of the cluster.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	var l nodeList
	err := c.ask(ctx, http.MethodGet, "/v1/nodes", nil, &l)
	return l.Nodes, err
}

// Conflicts asks for the kept states of a tree, or of all.
func (c *Client) Conflicts(ctx context.Context, tree string) ([]Conflict, error) {
	var l conflictList
	err := c.ask(ctx, http.MethodGet, "/v1/conflicts?"+url.Values{"tree": {tree}}.Encode(), nil, &l)
	return l.Conflicts, err
}

// RemoveNode takes a node out of the cluster for good.
func (c *Client) RemoveNode(ctx context.Context, name string) error {
	return c.ask(ctx, http.MethodPost, "/v1/nodes/remove", removal{name}, nil)
}

// Restore puts a kept state back into its tree.
func (c *Client) Restore(ctx context.Context, tree, id, to string) error {
	return c.ask(ctx, http.MethodPost, "/v1/conflicts/restore", restoration{tree, id, Escape(to)}, nil)
}

// ask does one request. into may be nil.
func (c *Client) ask(ctx context.Context, method, path string, body, into any) (err error) {
	var b bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&b).Encode(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://clsync"+path, &b)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var u *url.Error // its own words name a host that does not exist
		if errors.As(err, &u) {
			err = u.Err
		}
		if !errors.Is(err, ErrDenied) && !errors.Is(err, ErrUnreachable) {
			err = fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		return refusal(resp)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// remote is what the daemon said, with the sentinel that its status stands for.
type remote struct {
	msg string
	is  error
}

func (r remote) Error() string { return r.msg }
func (r remote) Unwrap() error { return r.is }

func refusal(resp *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return err
	}
	var f failure
	if json.Unmarshal(text, &f) != nil || f.Error == "" {
		f.Error = "the daemon answered " + resp.Status
	}
	r := remote{msg: f.Error}
	for _, c := range codes {
		if resp.StatusCode == c.code {
			r.is = c.err
		}
	}
	return r
}

// Close drops the connections that are kept for the next question.
func (c *Client) Close() { c.http.CloseIdleConnections() }
