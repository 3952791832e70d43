// Starts the `nats-server` in PATH as NATS's own JavaScript suites do: one generated configuration file, and the ports
// file says where it listens. Asks of the server: `-c`, `ports_file_dir`, ports of -1 and ports held over a restart.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

const LIMIT_MS = 10_000;

/** Polls until `check` gives something truthy; fails after a time limit with `what`. */
export async function until(what, check, limitMs = LIMIT_MS) {
  const end = Date.now() + limitMs;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (Date.now() > end) throw new Error(`waited ${limitMs} ms for ${what}`);
    await pause(10);
  }
}

export class Server {
  /** `config` is everything but the listening ports and the ports file; `ws` adds a WebSocket listener, `js` JetStream. */
  static async start(config = "", { ws = false, js = false } = {}) {
    const s = new Server();
    s.dir = await mkdtemp(join(tmpdir(), "smoke-"));
    s.file = join(s.dir, "server.conf");
    s.config = config;
    s.ws = ws;
    s.js = js;
    s.ports = { nats: -1, websocket: -1, monitoring: -1 };
    await s.#spawn();
    return s;
  }

  async #writeConfig() {
    const lines = [
      `listen: "127.0.0.1:${this.asked.nats}"`,
      `http: "127.0.0.1:${this.asked.monitoring}"`,
      `ports_file_dir: ${JSON.stringify(this.dir)}`,
    ];
    if (this.ws) lines.push(`websocket { listen: "127.0.0.1:${this.asked.websocket}", no_tls: true, compression: true }`);
    if (this.js) lines.push(`jetstream { store_dir: ${JSON.stringify(join(this.dir, "store"))} }`);
    await writeFile(this.file, lines.join("\n") + "\n" + this.config + "\n");
  }

  async #spawn() {
    // Kept for reloads: nats-server refuses to change the monitoring port, even from -1 to the port that it chose.
    this.asked = { ...this.ports };
    await this.#writeConfig();
    this.log = "";
    this.child = spawn("nats-server", ["-c", this.file], { stdio: ["ignore", "ignore", "pipe"] });
    this.child.stderr.on("data", (d) => (this.log += d));
    this.ended = once(this.child, "exit");
    const mine = `_${this.child.pid}.ports`;
    const text = await until("the ports file", async () => {
      if (this.child.exitCode !== null) throw new Error(`nats-server ended with ${this.child.exitCode}:\n${this.log}`);
      const name = (await readdir(this.dir)).find((f) => f.endsWith(mine));
      if (!name) return null;
      const body = await readFile(join(this.dir, name), "utf8");
      return body.trimEnd().endsWith("}") ? body : null;
    });
    for (const [kind, urls] of Object.entries(JSON.parse(text))) {
      this.ports[kind] = Number(new URL(urls[0]).port);
    }
  }

  get url() {
    return `127.0.0.1:${this.ports.nats}`;
  }

  get wsUrl() {
    return `ws://127.0.0.1:${this.ports.websocket}`;
  }

  signal(name) {
    this.child.kill(name);
  }

  /** Kills the server without warning. */
  async kill() {
    this.child.kill("SIGKILL");
    await this.ended;
  }

  /** Starts the killed server again on the ports that it had. */
  async again() {
    await this.#spawn();
  }

  /** Asks it to end, and gives its exit status. */
  async stop() {
    this.child.kill("SIGTERM");
    const [code] = await this.ended;
    await rm(this.dir, { recursive: true, force: true });
    return code;
  }

  /** Rewrites the configuration and asks for a reload. */
  async reload(config) {
    this.config = config;
    await this.#writeConfig();
    this.log = "";
    this.child.kill("SIGHUP");
    await until("the reload", () => this.log.includes("Reloaded server configuration"));
  }

  async varz() {
    return (await fetch(`http://127.0.0.1:${this.ports.monitoring}/varz`)).json();
  }
}

/** A test body with a server of its own, stopped whatever happens. */
export function withServer(config, body, options) {
  return async () => {
    const server = await Server.start(config, options);
    const open = [];
    try {
      await body(server, (nc) => (open.push(nc), nc));
    } finally {
      for (const nc of open) await nc.close().catch(() => {});
      await server.stop();
    }
  };
}
