import assert from 'node:assert/strict'
import { createServer, get, type Server, type ServerResponse } from 'node:http'
import { once } from 'node:events'
import { connect, type AddressInfo, type Socket } from 'node:net'
import { closeOldestBeyond } from '../../../src/api/connection-limit.ts'

const MAX = 4

describe('a limit of connections', () => {
  let server: Server
  let port = 0
  const sockets: Socket[] = []

  beforeEach(async () => {
    server = createServer((request, response) => { if (request.url !== '/slow') response.end('answer') })
    closeOldestBeyond(server, MAX)
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    port = (server.address() as AddressInfo).port
  })
  afterEach(async () => {
    for (const socket of sockets.splice(0)) socket.destroy()
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  })

  /** A connection that sends `text` and then nothing. */
  async function open (text: string): Promise<Socket> {
    const socket = connect(port, '127.0.0.1')
    sockets.push(socket.on('error', () => undefined))
    const taken = once(server, 'connection')
    socket.write(text)
    await taken
    return socket
  }

  async function asked (): Promise<string> {
    return await new Promise((resolve, reject) => {
      get({ port, host: '127.0.0.1', agent: false }, answer => { answer.setEncoding('utf8').on('data', resolve).on('error', reject) }).on('error', reject)
    })
  }

  it('closes the oldest that waits for no answer, and answers who comes', async () => {
    const slow = once(server, 'request')
    const waiting = await open('GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n')
    const [, response] = await slow as [unknown, ServerResponse]
    const silent: Socket[] = []
    for (let left = MAX - 1; left > 0; left--) silent.push(await open('GET /'))
    const closed = once(silent[0] as Socket, 'close')
    assert.equal(await asked(), 'answer')
    await closed
    assert.deepEqual(silent.slice(1).map(socket => socket.destroyed), [false, false])
    response.end('late')
    const [text] = await once(waiting.setEncoding('utf8'), 'data') as [string]
    assert.match(text, /late/)
  })

  it('closes the oldest of all when each waits for an answer', async () => {
    const waiting: Socket[] = []
    for (let left = MAX; left > 0; left--) {
      const slow = once(server, 'request')
      waiting.push(await open('GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n'))
      await slow
    }
    const closed = once(waiting[0] as Socket, 'close')
    assert.equal(await asked(), 'answer')
    await closed
    assert.deepEqual(waiting.slice(1).map(socket => socket.destroyed), [false, false, false])
  })
})
