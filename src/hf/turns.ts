import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { HF_PIPELINED_MAX } from '../base/index.ts'

interface Waiting { response: ServerResponse, serve: () => void }

/**
 * Requests of one connection are answered one after the other: Node hands over all that a client has sent, whether it reads the
 * answers or not, and each answer would hold a model open, buffers and a place in the upstream's queue until the ones before it are read.
 */
export class Turns {
  /** Connections with an answer under way, and what waits behind that. */
  readonly #waiting = new WeakMap<Socket, Waiting[]>()

  /** Calls `serve` when all answers before this one have gone out. Never when the connection ends before; it does when too many wait. */
  take (socket: Socket, response: ServerResponse, serve: () => void): void {
    if (socket.destroyed) return // what else was in the same packet
    const waiting = this.#waiting.get(socket)
    if (waiting === undefined) {
      this.#waiting.set(socket, [])
      this.#begin(socket, { response, serve })
    } else if (waiting.length < HF_PIPELINED_MAX) waiting.push({ response, serve })
    else socket.destroy()
  }

  /** True while an answer is under way. */
  isBusy (socket: Socket): boolean { return this.#waiting.has(socket) }

  #begin (socket: Socket, { response, serve }: Waiting): void {
    response.once('close', () => {
      const next = socket.writable ? this.#waiting.get(socket)?.shift() : undefined
      if (next === undefined) this.#waiting.delete(socket)
      else this.#begin(socket, next)
    })
    serve()
  }
}
