"""The whole life of a grant with Authlib, against a sandbox:

    python3 life.py http://127.0.0.1:8484
"""
import json
import sys
import urllib.error
import urllib.parse
import urllib.request

from authlib.oauth2.client import OAuth2Client

BASE = sys.argv[1]
OAUTH = BASE + "/security/v1/oauth"
TRACK = BASE + "/api/track/v1/details/1Z999AA10123456784"
REDIRECT = "http://localhost:8000/callback"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"  # a program makes its own each time


class Answer:
    def __init__(self, answer):
        self.status_code, self.headers, self.body = answer.status, answer.headers, answer.read()

    def json(self):
        return json.loads(self.body)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


OPENER = urllib.request.build_opener(NoRedirect)


class Session:
    """What Authlib wants of an HTTP library. With requests installed,
    authlib.integrations.requests_client.OAuth2Session brings its own."""

    def request(self, method, url, data=None, headers=None, auth=None):
        headers, body = dict(headers or {}), urllib.parse.urlencode(data or {})
        if auth:
            url, headers, body = auth.prepare(method, url, headers, body)
        sent = urllib.request.Request(url, body.encode() if method == "POST" else None, headers, method=method)
        try:
            return Answer(OPENER.open(sent, timeout=30))
        except urllib.error.HTTPError as error:
            return Answer(error)

    def post(self, url, **what):
        return self.request("POST", url, **what)


def refused(response):
    """UPS's errors are not those of RFC 6749: without this, Authlib takes them for tokens."""
    if response.status_code != 200:
        error = response.json()["response"]["errors"][0]
        raise PermissionError("%d %s %s" % (response.status_code, error["code"], error["message"]))
    return response


def client(pkce=False, **more):
    # UPS wants no Authorization header in an exchange with PKCE, and HTTP Basic
    # otherwise.
    secret = {"code_challenge_method": "S256"} if pkce else {"client_secret": "made-up"}
    made = OAuth2Client(Session(), "my-client", redirect_uri=REDIRECT, scope="read", **secret, **more)
    made.register_compliance_hook("access_token_response", refused)
    made.register_compliance_hook("refresh_token_response", refused)
    return made


def track(application):
    application.ensure_active_token(application.token)
    url, headers, _ = application.token_auth.prepare(TRACK, {}, None)
    return application.session.request("GET", url, headers=headers)


def sign_in(address):
    """The person signs in and agrees: the fields of both pages at once."""
    login = Session().request("GET", address).headers["Location"]
    return Session().post(login, data={"username": "jane", "agree": "yes", "password": "made-up"}).headers["Location"]


def must_be_refused(what, call):
    try:
        call()
    except PermissionError as error:
        print(what, "refused:", error)
        return
    sys.exit(what + " was not refused")


for pkce in (False, True):
    name = "pkce" if pkce else "basic"
    extra = {"code_verifier": VERIFIER} if pkce else {}
    application = client(pkce)
    address, state = application.create_authorization_url(OAUTH + "/authorize", **extra)
    callback = sign_in(address)
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(callback).query, strict_parsing=True)
    assert query["code"][0].endswith("=="), "the code's end is missing"

    first = application.fetch_token(OAUTH + "/token", authorization_response=callback, state=state, **extra)
    print(name, "expires in", first["expires_in"], "seconds")
    must_be_refused(name + " code", lambda: client(pkce).fetch_token(OAUTH + "/token", authorization_response=callback, state=state, **extra))

    # A code that comes twice voids its grant, so it takes another.
    callback = sign_in(address)
    first = application.fetch_token(OAUTH + "/token", authorization_response=callback, state=state, **extra)
    print(name, "tracked:", track(application).json()["trackResponse"]["shipment"][0]["inquiryNumber"])

    # UPS refreshes at a path of its own, with HTTP Basic also after PKCE.
    renewing = client()
    second = renewing.refresh_token(OAUTH + "/refresh", refresh_token=first["refresh_token"])
    print(name, "refresh_count", second["refresh_count"])
    must_be_refused(name + " refresh token", lambda: renewing.refresh_token(OAUTH + "/refresh", refresh_token=first["refresh_token"]))

    # With an access token that has expired, the client refreshes by itself.
    kept = []
    aged = client(token=dict(second, expires_at=1), token_endpoint=OAUTH + "/refresh",
                  update_token=lambda token, **_: kept.append(token["refresh_token"]))
    assert track(aged).status_code == 200 and kept[0] != second["refresh_token"]
    print(name, "refreshed by itself")
