package serve

import "net/http"

// Probes answers GET /liveness and GET /readiness with table, and with status 503 while live or ready does not hold.
func Probes(live, ready func() bool, table func() []byte) http.Handler {
	answer := func(ok func() bool) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			if !ok() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			_, _ = w.Write(table()) // the client is gone: nobody to tell
		}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /liveness", answer(live))
	mux.Handle("GET /readiness", answer(ready))
	return mux
}
