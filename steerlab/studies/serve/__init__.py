"""An endpoint on this machine that speaks OpenAI's protocol, with an edit in each request."""

from steerlab.studies.serve.endpoint import endpoint as endpoint
