import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import { AbortError, systemClock, type Clock } from '../../../src/base/index.ts'
import { Body, headDue } from '../../../src/hf/body.ts'
import { Buffers } from '../../../src/hf/buffers.ts'
import { streamOrigin } from '../../../src/hf/stream-origin.ts'
import type { ArrivedFile, OriginModel, ShoalNode } from '../../../src/node/types.ts'

const SIZE = 100_000
const hasty: Clock = { ...systemClock, setTimeout: (work, delayMs) => systemClock.setTimeout(work, delayMs / 1_000) }
const never = async (signal: AbortSignal): Promise<never> => await new Promise((_resolve, reject) => { signal.addEventListener('abort', () => { reject(signal.reason as Error) }) })

describe('hf: a file on its way from the upstream', () => {
  it('is let go of when its reader leaves while a drop is being sent', async () => {
    let arrive: (file: ArrivedFile) => void = () => undefined
    let dropped = (): void => undefined
    const model: OriginModel = {
      repo: 'a/b', commit: 'c'.repeat(40), restricted: false, files: [], foreign: undefined, cid: undefined,
      isVerified: () => false,
      find: never,
      verify: async () => undefined,
      arrival: async () => await new Promise(resolve => { arrive = resolve }),
      peek: async () => { dropped(); return Buffer.alloc(512) },
      pass: () => { throw new Error('it is not foreign') },
      lose: () => undefined
    }
    const node: Pick<ShoalNode, 'open' | 'wholeFile'> = { open: async () => { throw new Error('it is in no model') }, wholeFile: () => undefined }
    const gone = new AbortController()
    const held: ServerResponse[] = []
    let answering: Promise<void> | undefined
    // Behind an answer that goes on, Node keeps what is written, and calls nobody back when the connection ends.
    const server = createServer((_request, response) => {
      if (held.push(response) === 1) return
      const begin = (): void => { response.writeHead(200, { 'content-length': SIZE }) }
      const body = new Body({ response, clock: hasty, begin, due: headDue(hasty, gone.signal), signal: gone.signal })
      answering = streamOrigin({ node, buffers: new Buffers(), clock: hasty }, model, { path: 'f', size: SIZE, range: { offset: 0, length: SIZE } }, body)
      answering.catch(() => undefined)
    })
    await once(server.listen(0, '127.0.0.1'), 'listening')
    try {
      const drop = new Promise<void>(resolve => { dropped = resolve })
      const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
      socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'.repeat(2))
      await drop
      socket.destroy()
      gone.abort(new AbortError('the reader is gone'))
      const closed = new Promise<void>(resolve => { arrive({ size: SIZE, read: async () => undefined, close: async () => { resolve() } }) })
      await closed
      await assert.rejects(answering ?? Promise.resolve(), { name: 'AbortError' })
    } finally {
      server.closeAllConnections()
      await new Promise<void>(resolve => { server.close(() => { resolve() }) })
    }
  })
})
