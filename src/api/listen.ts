/** Where the servers for programs listen: the API over TCP, the metrics, the endpoint for Hugging Face clients. */
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { ConfigError } from '../base/index.ts'

export interface ListenInit {
  /** A loopback address, unless `allowRemote`. */
  host: string
  /** 0 takes a free one. */
  port: number
  /** Listen on addresses that others can reach too. Default false. */
  allowRemote?: boolean
  /** Host names answered to besides the loopback ones and `host`. */
  hosts?: string[]
}

/** For messages: who listens, and the keys that say where and that others may reach it. */
export interface Listener { name: string, hostKey: string, portKey: string, allowKey: string }

export const API_TCP: Listener = { name: 'the API', hostKey: 'api.tcp.host', portKey: 'api.tcp.port', allowKey: 'api.tcp.allowRemote' }
export const METRICS: Listener = { name: 'the metrics', hostKey: 'metrics.listen', portKey: 'metrics.listen', allowKey: 'metrics.allowRemote' }
export const HUGGING_FACE: Listener = { name: 'the Hugging Face endpoint', hostKey: 'hf.listen', portKey: 'hf.listen', allowKey: 'hf.allowRemote' }

/** Hosts that only this machine can reach. */
const LOOPBACK = ['127.0.0.1', '::1', 'localhost']

/** What others can reach is asked for twice. Throws ConfigError. */
export function checkListen ({ host, port, allowRemote }: ListenInit, { hostKey, portKey, allowKey }: Listener): void {
  const verb = hostKey === portKey ? 'names' : 'is'
  if (allowRemote !== true && !LOOPBACK.includes(host)) {
    throw new ConfigError(`${hostKey} ${verb} ${host}, which others can reach; use 127.0.0.1, or set ${allowKey} if that is meant`)
  }
  if (!Number.isInteger(port) || port < 0 || port > 65_535) throw new ConfigError(`${portKey} ${verb} ${port}; a port is 0 to 65535`)
}

/** Returns where it listens then: `http://127.0.0.1:8765`. Throws ConfigError. */
export async function listen (server: Server, { host, port }: ListenInit, { name, portKey }: Listener): Promise<string> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', error => {
      reject(new ConfigError(`${name} cannot listen on ${host} port ${port}: ${error.message}; set ${portKey} to another, or stop what uses it`, { cause: error }))
    })
    server.listen(port, host, resolve)
  })
  server.removeAllListeners('error')
  return `http://${bracketed(host)}:${(server.address() as AddressInfo).port}`
}

/** A host as it stands in addresses and Host headers. */
export function bracketed (host: string): string {
  return host.includes(':') ? `[${host}]` : host
}
