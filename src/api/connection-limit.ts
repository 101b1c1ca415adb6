import type { Server } from 'node:http'
import type { Socket } from 'node:net'

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
