// A web application's sign-in with passport-oauth2, against a sandbox:
//
//	node passport.mjs http://127.0.0.1:8484
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { parse } from "node:querystring";
import passport from "passport";
import OAuth2Strategy from "passport-oauth2";

const base = process.argv[2];
const [clientID, clientSecret] = ["my-client", "made-up"];
// The package sends the secret in the form, where UPS wants HTTP Basic.
const basic = { Authorization: `Basic ${Buffer.from(`${clientID}:${clientSecret}`).toString("base64")}` };

const session = {}; // one person's; a program has a session middleware
const app = createServer((req, res) => {
  const [path, query] = req.url.split("?");
  req.session = session;
  req.query = parse(query);
  res.setHeader("Connection", "close");
  passport.authenticate(path.slice(1), { session: false })(req, res, (error) => {
    res.statusCode = error ? 502 : 200;
    res.end(JSON.stringify(error ? { error: error.message, answer: error.oauthError?.data } : req.user));
  });
});
await new Promise((resolve) => app.listen(0, "localhost", resolve));
const application = `http://localhost:${app.address().port}`;

// The name of a strategy is its path, and the callback's.
function strategy(name, options, customHeaders) {
  const made = new OAuth2Strategy(
    {
      authorizationURL: `${base}/security/v1/oauth/authorize`, tokenURL: `${base}/security/v1/oauth/token`,
      callbackURL: `${application}/${name}`, clientID, clientSecret, customHeaders, state: true, ...options,
    },
    (access, refresh, answer, profile, done) => done(null, { access, refresh, answer }),
  );
  made.userProfile = (access, done) => done(null, {}); // UPS has no such endpoint
  passport.use(name, made);
}
strategy("basic", {}, basic);
strategy("pkce", { pkce: true }); // UPS wants no Authorization header then
strategy("mistaken", {});

// The person signs in and agrees: the fields of both pages at once.
async function signIn(name) {
  const away = await fetch(`${application}/${name}`, { redirect: "manual" });
  const login = await fetch(away.headers.get("location"), { redirect: "manual" });
  const agreed = await fetch(login.headers.get("location"), {
    method: "POST", redirect: "manual",
    body: new URLSearchParams({ username: "jane", agree: "yes", password: "made-up" }),
  });
  const callback = agreed.headers.get("location");
  return { callback, answer: await fetch(callback) };
}

// UPS refreshes at a path of its own, so it takes a second client.
const { _oauth2: refreshing } = new OAuth2Strategy(
  { authorizationURL: base, tokenURL: `${base}/security/v1/oauth/refresh`, clientID, clientSecret, customHeaders: basic }, () => {});
const renew = (token) => new Promise((resolve, reject) => {
  refreshing.getOAuthAccessToken(token, { grant_type: "refresh_token" },
    (error, access, refresh, answer) => (error ? reject(error) : resolve({ access, refresh, answer })));
});
const track = (access) =>
  fetch(`${base}/api/track/v1/details/1Z999AA10123456784`, { headers: { authorization: `Bearer ${access}` } });

for (const name of ["basic", "pkce"]) {
  const { callback, answer } = await signIn(name);
  const first = await answer.json();
  assert.equal(answer.status, 200, JSON.stringify(first));
  console.log(`${name}: expires in ${first.answer.expires_in} seconds`);
  // The same callback again has no state in the session any more.
  assert.equal((await fetch(callback)).status, 403);

  assert.equal((await track(first.access)).status, 200);
  const second = await renew(first.refresh);
  console.log(`${name}: refresh_count ${second.answer.refresh_count}`);
  await assert.rejects(renew(first.refresh), (error) => {
    console.log(`${name}: refused: ${error.statusCode} ${JSON.parse(error.data).response.errors[0].message}`);
    return true;
  });
  assert.equal((await track(second.access)).status, 200);
}

const { answer } = await signIn("mistaken");
console.log("without HTTP Basic:", JSON.parse((await answer.json()).answer).response.errors[0].message);
app.close();
