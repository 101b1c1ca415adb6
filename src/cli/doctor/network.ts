/** What `shoal doctor` looks at of ports and peers. */
import { connect, createServer } from 'node:net'
import { multiaddr } from '@multiformats/multiaddr'
import { asError, systemCode } from '../../base/index.ts'
import type { PeerStatus } from '../../node/types.ts'
import type { ShownStatus } from '../../api/types.ts'
import { count } from '../format.ts'
import { fail, ok, warn, type Finding } from './finding.ts'

const CONNECT_TIMEOUT_MS = 2_000

const HF = 'the Hugging Face endpoint'
const API = 'the API over TCP'
const METRICS = 'the metrics'
/** The key that says where it listens. */
const KEYS: Readonly<Record<string, string>> = { lanes: '--set lane.port=PORT', [HF]: '--set hf.listen=HOST:PORT', [API]: '--set api.tcp.port=PORT', [METRICS]: '--set metrics.listen=HOST:PORT' }

interface Port { host: string, port: number, what: string }

export interface PortSettings { listen: readonly string[], lane: { enabled: boolean, port: number | undefined } }
/** For programs rather than peers; undefined where there is none. */
export interface HttpListeners { hf: { host: string, port: number } | undefined, api: { host: string, port: number } | undefined, metrics: { host: string, port: number } | undefined }

/** What listens for clients over TCP. As `ports`, and without a daemon's word for where it does. */
export async function httpPorts ({ hf, api, metrics }: HttpListeners, isUp: boolean): Promise<Finding[]> {
  const all: Port[] = [...hf === undefined ? [] : [{ ...hf, what: HF }], ...api === undefined ? [] : [{ ...api, what: API }], ...metrics === undefined ? [] : [{ ...metrics, what: METRICS }]]
  return await Promise.all(all.filter(({ port }) => !(isUp && port === 0)).map(async port => await (isUp ? answers(port) : couldListen(port))))
}

/** With a daemon: do its ports answer? Without: could it have them? */
export async function ports (settings: PortSettings, status: ShownStatus | undefined): Promise<Finding[]> {
  const listened = tcpOf(status?.listening ?? settings.listen)
  if (listened.length === 0) {
    return [status === undefined
      ? ok('ports', 'no TCP address is listened on: nothing to be taken')
      : fail('ports', 'the daemon listens on no TCP address: nobody can reach it', 'give it one with --listen, such as /ip4/0.0.0.0/tcp/4108')]
  }
  // Whoever gave the daemon other addresses than this command was told of may have set its lanes otherwise too.
  const isSame = status === undefined || listened.some(({ port }) => tcpOf(settings.listen).some(other => other.port === port))
  const all = [...listened, ...isSame || settings.lane.port !== undefined ? lanePort(settings.lane, listened[0]) : []]
  return await Promise.all(all.map(async port => await (status === undefined ? couldListen(port) : answers(port))))
}

function lanePort ({ enabled, port }: PortSettings['lane'], first: Port | undefined): Port[] {
  if (!enabled || first === undefined || first.port === 0) return []
  return port === 0 ? [] : [{ host: first.host, port: port ?? first.port + 1, what: 'lanes' }]
}

/** The first of several addresses with one port says as much as all of them. */
function tcpOf (addresses: readonly string[]): Port[] {
  const found = new Map<number, Port>()
  for (const address of addresses) {
    const parts = new Map(multiaddr(address).getComponents().map(({ name, value }) => [name, value ?? '']))
    const host = parts.get('ip4') ?? parts.get('ip6')
    const port = Number(parts.get('tcp'))
    if (host === undefined || !parts.has('tcp')) continue
    const before = found.get(port)
    // Loopback is where this command can reach it for sure.
    if (before === undefined || host === '127.0.0.1') found.set(port, { host, port, what: 'libp2p' })
  }
  return [...found.values()]
}

async function answers ({ host, port, what }: Port): Promise<Finding> {
  const to = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host
  const error = await new Promise<Error | undefined>(resolve => {
    const socket = connect({ host: to, port, timeout: CONNECT_TIMEOUT_MS })
    const end = (error?: Error): void => { socket.destroy(); resolve(error) }
    socket.once('connect', () => { end() }).once('error', end).once('timeout', () => { end(new Error('no answer')) })
  })
  if (error === undefined) return ok('ports', `${what} answers on ${to} port ${port}`)
  const message = `${what} does not answer on ${to} port ${port}: ${error.message}`
  if (what === 'lanes') return warn('ports', message, 'another program may have had the port, and lanes took a free one: see lane.port; a firewall that knows ports wants it fixed')
  // This command may have been given another configuration than the daemon.
  if (what === HF || what === API || what === METRICS) return warn('ports', message, `see whether the daemon was started with the same configuration (${KEYS[what] ?? ''}), and its log`)
  return fail('ports', message, 'look for a firewall on this host (nft list ruleset), then at the log of the daemon')
}

async function couldListen ({ host, port, what }: Port): Promise<Finding> {
  if (port === 0) return ok('ports', `${what} takes any free port`)
  const error = await new Promise<Error | undefined>(resolve => {
    const server = createServer()
    server.once('error', resolve).listen({ host, port, exclusive: true }, () => { server.close(() => { resolve(undefined) }) })
  })
  if (error === undefined) return ok('ports', `${host} port ${port} is free for ${what}`)
  const code = systemCode(error)
  if (code === 'EADDRINUSE') {
    const fix = `find who has it (ss -ltnp 'sport = :${port}') and stop that, or listen elsewhere: ${KEYS[what] ?? '--listen'}`
    // Lanes do with any port.
    return (what === 'lanes' ? warn : fail)('ports', `${host} port ${port} (${what}) is taken by another program`, fix)
  }
  if (code === 'EACCES') return fail('ports', `this user may not listen on ${host} port ${port}`, 'use a port from 1024 on')
  return fail('ports', `${what} cannot listen on ${host} port ${port}: ${asError(error).message}`, `give an address of this host with ${KEYS[what] ?? '--listen'}`)
}

/** What the daemon itself calls a problem, each with what to do. Its own words: doctor is not to say otherwise than `shoal status`. */
export function problems (status: ShownStatus): Finding[] {
  return status.problems.map(problem => {
    const [, message = problem, fix = 'see shoal status'] = /^(.+?)(?:; |: (?=see ))(.+)$/s.exec(problem) ?? []
    if (isAlone(problem)) return fail('peers', message, fix)
    return warn('daemon', message, fix)
  })
}

/** The daemon was given peers to join and has none; what it was given only itself knows. */
function isAlone (problem: string): boolean {
  return problem.startsWith('no peer is connected')
}

export function peers (status: ShownStatus, known: readonly PeerStatus[]): Finding[] {
  const found: Finding[] = []
  if (status.peersConnected > 0) found.push(ok('peers', `${count(status.peersConnected, 'peer')} connected`))
  else if (!status.problems.some(isAlone)) found.push(warn('peers', 'no peer is connected, and the daemon was given none to join', 'join a swarm: get a token with shoal invite there, and give it to this daemon in SHOAL_JOIN'))
  const slow = known.filter(peer => peer.connected && peer.transport === 'stream')
  if (slow.length > 0) found.push(warn('peers', `blocks go to or from ${count(slow.length, 'peer')} by libp2p streams, several times slower than lanes`, 'let TCP through to the lane port of both (lane.port)'))
  return found
}
