package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

var (
	errAsk      = errors.New("malformed request")
	errNotReady = errors.New("not ready")
)

func (s *Server) status(r *http.Request) (any, error) {
	st, err := s.engine.Status(r.Context())
	if err != nil {
		return nil, err
	}
	st.Judge(time.Now())
	st.Escape()
	return st, nil
}

func (s *Server) nodes(r *http.Request) (any, error) {
	all, err := s.engine.Nodes(r.Context())
	each(&all, func(n *Node) { n.Name, n.Addr = Escape(n.Name), Escape(n.Addr) })
	return nodeList{all}, err
}

func (s *Server) conflicts(r *http.Request) (any, error) {
	all, err := s.engine.Conflicts(r.Context(), r.URL.Query().Get("tree"))
	each(&all, (*Conflict).escape)
	return conflictList{all}, err
}

func (s *Server) healthz(r *http.Request) (any, error) {
	return done{true}, s.engine.Health(r.Context())
}

func (s *Server) readyz(r *http.Request) (any, error) {
	st, err := s.engine.Status(r.Context())
	if err != nil {
		return nil, err
	}
	if err := st.Ready(); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotReady, err)
	}
	return done{true}, nil
}

func (s *Server) removeNode(r *http.Request) (any, error) {
	var ask removal
	if err := decode(r, &ask); err != nil {
		return nil, err
	}
	err := s.engine.RemoveNode(r.Context(), ask.Name)
	s.note(r, "removed node", err, "node", ask.Name)
	return done{true}, err
}

func (s *Server) restore(r *http.Request) (any, error) {
	var ask restoration
	if err := decode(r, &ask); err != nil {
		return nil, err
	}
	to, err := Unescape(ask.To)
	if err != nil {
		return nil, fmt.Errorf("%w: to: %w", errAsk, err)
	}
	err = s.engine.RestoreConflict(r.Context(), ask.Tree, ask.ID, to)
	s.note(r, "restored conflict", err, "tree", ask.Tree, "id", ask.ID, "to", Escape(to))
	return done{true}, err
}

// note logs who changed what; what did not happen is for the asker alone.
func (s *Server) note(r *http.Request, msg string, err error, args ...any) {
	if err == nil {
		who, _ := r.Context().Value(credKey{}).(cred)
		s.log.Info(msg, append(args, "uid", who.uid)...)
	}
}

// What travels between server and client beside Status.
type (
	nodeList struct {
		Nodes []Node `json:"nodes"`
	}
	conflictList struct {
		Conflicts []Conflict `json:"conflicts"`
	}
	removal struct {
		Name string `json:"name"`
	}
	restoration struct {
		Tree string `json:"tree"`
		ID   string `json:"id"`
		To   string `json:"to"` // escaped; empty: where it was
	}
	done struct {
		OK bool `json:"ok"`
	}
)

func decode(r *http.Request, into any) error {
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 64<<10))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%w: %w", errAsk, err)
	}
	return nil
}
