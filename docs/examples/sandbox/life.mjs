// The whole life of a grant with openid-client, against a sandbox:
//
//	node life.mjs http://127.0.0.1:8484
import assert from "node:assert/strict";
import { createRemoteJWKSet, jwtVerify } from "jose";
import * as client from "openid-client";

const base = process.argv[2];
const server = {
  issuer: "https://apis.ups.com",
  authorization_endpoint: `${base}/security/v1/oauth/authorize`,
  token_endpoint: `${base}/security/v1/oauth/token`,
};
const redirect = "http://localhost:8000/callback";
const secret = "made-up";

// UPS wants no Authorization header in an exchange with PKCE, and HTTP Basic at
// the endpoint of its own that refreshes.
const exchanging = new client.Configuration(server, "my-client", undefined, client.None());
const refreshing = new client.Configuration(
  { ...server, token_endpoint: `${base}/security/v1/oauth/refresh` },
  "my-client", undefined, client.ClientSecretBasic(secret),
);
client.allowInsecureRequests(exchanging);
client.allowInsecureRequests(refreshing);

// The application sends the browser away.
const pkceCodeVerifier = client.randomPKCECodeVerifier();
const expectedState = client.randomState();
const address = client.buildAuthorizationUrl(exchanging, {
  redirect_uri: redirect,
  state: expectedState,
  code_challenge: await client.calculatePKCECodeChallenge(pkceCodeVerifier),
  code_challenge_method: "S256",
});

// The person signs in and agrees: the fields of both pages at once.
const login = await fetch(address, { redirect: "manual" });
const agreed = await fetch(login.headers.get("location"), {
  method: "POST", redirect: "manual",
  body: new URLSearchParams({ username: "jane", agree: "yes", password: "made-up" }),
});
const callback = new URL(agreed.headers.get("location"));

// A callback with another state is none of ours.
await assert.rejects(client.authorizationCodeGrant(exchanging, callback, { pkceCodeVerifier, expectedState: "another" }));
const first = await client.authorizationCodeGrant(exchanging, callback, { pkceCodeVerifier, expectedState });
console.log("exchanged: expires in", first.expires_in, "seconds");

const keys = createRemoteJWKSet(new URL(`${base}/security/v1/oauth/keys`));
const { payload, protectedHeader } = await jwtVerify(first.access_token, keys, { issuer: server.issuer });
console.log("verified:", protectedHeader.alg, payload.sub);

const track = new URL(`${base}/api/track/v1/details/1Z999AA10123456784`);
const answer = await client.fetchProtectedResource(exchanging, first.access_token, track, "GET");
console.log("tracked:", (await answer.json()).trackResponse.shipment[0].inquiryNumber);

const second = await client.refreshTokenGrant(refreshing, first.refresh_token);
assert.notEqual(second.refresh_token, first.refresh_token);
console.log("refreshed: refresh_count", second.refresh_count);

// A refresh token works once. UPS's errors are not those of RFC 6749, so the
// library gives their answer as it is.
const refused = await client.refreshTokenGrant(refreshing, first.refresh_token).then(
  () => assert.fail("a spent refresh token was taken"), (error) => error.cause);
console.log("refused:", refused.status, refused.headers.get("errorcode"), refused.headers.get("errordescription"));

// A changed ups.com password voids all.
await fetch(`${base}/sandbox/users/jane/password`, { method: "POST" });
await assert.rejects(client.refreshTokenGrant(refreshing, second.refresh_token));
const voided = await fetch(track, { headers: { authorization: `Bearer ${second.access_token}` } });
console.log("voided:", voided.status, (await voided.json()).response.errors[0].code);
