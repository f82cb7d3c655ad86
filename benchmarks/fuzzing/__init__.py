"""Every operation of the OpenAPI document asked with made-up requests, well formed and not, of a service that has a past."""
