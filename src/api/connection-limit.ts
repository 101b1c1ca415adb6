import type { Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { ApiBusyError } from '../base/index.ts'
import { errorJson, statusOf } from './http-errors.ts'

/** So many beyond the limit are told of it; who comes after them finds the connection closed, as if the process were gone. */
const TOLD_MAX = 64

/** Keeps `max` connections, and answers requests on a few more with why nothing else is done for them. */
export class ConnectionLimit {
  readonly #max: number
  readonly #beyond = new WeakSet<Socket>()
  #open = 0

  constructor (max: number) { this.#max = max }

  watch (server: Server): void {
    server.maxConnections = this.#max + TOLD_MAX
    server.on('connection', socket => {
      if (++this.#open > this.#max) this.#beyond.add(socket)
      socket.once('close', () => { this.#open-- })
    })
  }

  /** True when this request has been answered here, because of the limit. */
  refuses (response: ServerResponse): boolean {
    const { req: request } = response
    if (this.#open <= this.#max || !this.#beyond.has(request.socket)) return false
    const error = errorJson(new ApiBusyError(`all ${this.#max} connections that the API takes are open; close programs that have models open, or try again when one has ended`))
    const body = Buffer.from(JSON.stringify({ error }))
    request.resume()
    response.writeHead(statusOf(error), { 'content-type': 'application/json', 'content-length': body.length, connection: 'close' })
    response.end(request.method === 'HEAD' ? undefined : body)
    return true
  }
}

/**
 * Keeps at most `max` connections by closing old ones: first the oldest that waits for no answer. Where anybody may
 * connect, refusing the newest would let whoever holds `max` sockets open shut out everybody else, and with them those
 * who ask whether the process lives.
 */
export function closeOldestBeyond (server: Server, max: number): void {
  /** Oldest first, with how many answers each waits for. */
  const connections = new Map<Socket, number>()
  server.on('connection', socket => {
    if (connections.size >= max) {
      const oldest = [...connections].find(([, answers]) => answers === 0) ?? [...connections][0]
      // Its close comes later, after others may have connected.
      if (oldest !== undefined) connections.delete(oldest[0])
      oldest?.[0].destroy()
    }
    connections.set(socket, 0)
    socket.once('close', () => { connections.delete(socket) })
  })
  server.on('request', ({ socket }, response) => {
    const count = (change: number): void => {
      const answers = connections.get(socket)
      if (answers !== undefined) connections.set(socket, answers + change)
    }
    count(1)
    response.once('close', () => { count(-1) })
  })
}
