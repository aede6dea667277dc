package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/clsync/clsync/node/config"
)

// patienceOfServer bounds one answer; a stuck engine must not gather askers.
const patienceOfServer = 20 * time.Second

// A Server answers on the control socket, and serves metrics on a loopback
// address if the configuration names one.
type Server struct {
	engine  Engine
	log     *slog.Logger
	door    door
	socket  *listener
	metrics net.Listener // nil: on the socket only
}

// Listen opens what the configuration names; from then on clients can connect.
// Serve must be called, or Close.
func Listen(c *config.Config, engine Engine, log *slog.Logger) (*Server, error) {
	s := &Server{engine: engine, log: log, door: door{own: uint32(os.Geteuid()), group: -1}}
	if c.Operators != "" {
		gid, err := config.GroupID(c.Operators)
		if err != nil {
			return nil, fmt.Errorf("open control socket: %w", err)
		}
		s.door.group = gid
	}
	var err error
	if s.socket, err = listen(c.Socket(), s.door.group); err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	if c.Metrics != "" {
		if s.metrics, err = net.Listen("tcp", c.Metrics); err != nil {
			return nil, errors.Join(fmt.Errorf("open metrics address: %w", err), s.socket.Close())
		}
	}
	return s, nil
}

// Close ends a server that was never asked to Serve.
func (s *Server) Close() error {
	err := s.socket.Close()
	if s.metrics != nil {
		err = errors.Join(err, s.metrics.Close())
	}
	return err
}

// Serve answers until ctx is done, and then finishes the answers under way within
// a second.
func (s *Server) Serve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	metrics := promhttp.HandlerFor(registry(s.engine), promhttp.HandlerOpts{
		MaxRequestsInFlight: 4, ErrorHandling: promhttp.ContinueOnError,
	})
	s.serve(ctx, g, s.socket, s.handler(metrics))
	if s.metrics != nil {
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", metrics)
		s.serve(ctx, g, s.metrics, mux)
	}
	return g.Wait()
}

func (s *Server) serve(ctx context.Context, g *errgroup.Group, l net.Listener, h http.Handler) {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      patienceOfServer + 10*time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if c, ok := c.(*conn); ok {
				return context.WithValue(ctx, credKey{}, c.who)
			}
			return ctx
		},
	}
	g.Go(func() error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", l.Addr(), err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := srv.Shutdown(end); err != nil {
			return srv.Close()
		}
		return nil
	})
}

type credKey struct{}

// handler is everything that the socket answers to.
func (s *Server) handler(metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	read := func(pattern string, f func(*http.Request) (any, error)) {
		mux.Handle(pattern, s.guard(s.door.mayRead, answer(f)))
	}
	change := func(pattern string, f func(*http.Request) (any, error)) {
		mux.Handle(pattern, s.guard(s.door.mayChange, answer(f)))
	}
	read("GET /v1/status", s.status)
	read("GET /v1/nodes", s.nodes)
	read("GET /v1/conflicts", s.conflicts)
	read("GET /healthz", s.healthz)
	read("GET /readyz", s.readyz)
	change("POST /v1/nodes/remove", s.removeNode)
	change("POST /v1/conflicts/restore", s.restore)
	mux.Handle("GET /metrics", s.guard(s.door.mayRead, metrics))
	return mux
}

// guard lets a request through if its sender may. Every request is checked: one
// connection carries many.
func (s *Server) guard(may func(cred) bool, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, ok := r.Context().Value(credKey{}).(cred)
		if !ok || !may(who) {
			s.log.Warn("denied", "uid", who.uid, "path", r.URL.Path)
			fail(w, fmt.Errorf("%w: user %d may not do this", ErrDenied, who.uid))
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), patienceOfServer)
		defer cancel()
		h.ServeHTTP(w, r.WithContext(ctx))
	})
}

// answer writes what f returns as JSON.
func answer(f func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		if err != nil {
			fail(w, err)
			return
		}
		reply(w, http.StatusOK, v)
	})
}

type failure struct {
	Error string `json:"error"`
}

func fail(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	for _, c := range codes {
		if errors.Is(err, c.err) {
			code = c.code
		}
	}
	reply(w, code, failure{printable(err.Error())})
}

var codes = []struct {
	err  error
	code int
}{
	{ErrDenied, http.StatusForbidden}, {ErrNotFound, http.StatusNotFound}, {ErrRefused, http.StatusConflict},
	{errAsk, http.StatusBadRequest}, {errNotReady, http.StatusServiceUnavailable}, {context.DeadlineExceeded, http.StatusGatewayTimeout},
}

func reply(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic("encode an answer: " + err.Error()) // types of this package only
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// An asker that went away is nobody's error.
	_, _ = w.Write(append(b, '\n'))
}
