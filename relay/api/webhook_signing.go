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
	return s.setSigning(r, func(all []webhook.Endpoint) (webhook.Endpoint, error) {
		return webhookWithID(all, r.PathValue("id"))
	})
}

func (s *server) patchOldestSigning(r *request) (any, error) {
	return s.setSigning(r, func(all []webhook.Endpoint) (webhook.Endpoint, error) {
		if len(all) == 0 {
			return webhook.Endpoint{}, noSuchWebhook()
		}
		return all[0], nil
	})
}

// setSigning switches signing. On when it is on keeps the key pair, since
// consumers have its public half; off forgets it.
func (s *server) setSigning(r *request, find func([]webhook.Endpoint) (webhook.Endpoint, error)) (any, error) {
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
	e, err := s.changeWebhook(r, "webhook signing changed", func(all []webhook.Endpoint) (webhook.Endpoint, error) {
		e, err := find(all)
		if err != nil || on == (len(e.SigningKey) > 0) {
			return e, err
		}
		e.Updated, e.SigningKey = s.Now(), nil
		if on {
			e.SigningKey, err = webhook.NewSigningKey()
		}
		return e, err
	})
	if err != nil {
		return nil, err
	}
	return viewSigning(e)
}
