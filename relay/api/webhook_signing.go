package api

import "tlsrelay/events/webhook"

// signingView says whether and by which key a webhook is signed; without
// signing the key is "" (contract §5.2).
type signingView struct {
	ID        string `json:"id"`
	PublicKey string `json:"public_key"`
}

func viewSigning(e webhook.Endpoint) (signingView, error) {
	key, err := publicKey(e)
	return signingView{e.ID, key}, err
}

func publicKey(e webhook.Endpoint) (string, error) {
	if len(e.SigningKey) == 0 {
		return "", nil
	}
	return webhook.PublicKey(e.SigningKey)
}

func (s *server) getSigning(r *request) (any, error) {
	e, err := s.findWebhook(r)
	if err != nil {
		return nil, err
	}
	return viewSigning(e)
}

func (s *server) getOldestSigning(r *request) (any, error) {
	e, _, err := s.oldestWebhook(r)
	if err != nil {
		return nil, err
	}
	return viewSigning(e)
}

func (s *server) patchSigning(r *request) (any, error) {
	return s.setSigning(r, func() (webhook.Endpoint, error) { return s.findWebhook(r) })
}

func (s *server) patchOldestSigning(r *request) (any, error) {
	return s.setSigning(r, func() (webhook.Endpoint, error) {
		e, ok, err := s.oldestWebhook(r)
		if err == nil && !ok {
			err = noSuchWebhook()
		}
		return e, err
	})
}

// setSigning switches signing. On when it is on keeps the key pair, since
// consumers have its public half; off forgets it.
func (s *server) setSigning(r *request, find func() (webhook.Endpoint, error)) (any, error) {
	o, err := r.object(smallBody)
	if err != nil {
		return nil, err
	}
	if !o.has("enabled") {
		o.refuse("enabled", "enabled is required")
	}
	var on bool
	o.boolean("enabled", &on)
	if err := o.err(); err != nil {
		return nil, err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	e, err := find()
	if err != nil {
		return nil, err
	}
	if on == (len(e.SigningKey) > 0) {
		return viewSigning(e)
	}
	before := auditedWebhook(e)
	e.SigningKey = nil
	if on {
		if e.SigningKey, err = webhook.NewSigningKey(); err != nil {
			return nil, err
		}
	}
	e.Updated = s.Now()
	if err := s.Webhooks.PutEndpoint(r.Context(), e); err != nil {
		return nil, err
	}
	s.audit(r, "webhook signing changed", e.ID, before, auditedWebhook(e))
	return viewSigning(e)
}
