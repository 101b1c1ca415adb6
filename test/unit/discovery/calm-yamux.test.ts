import assert from 'node:assert/strict'
import type { Stream, StreamMuxer } from '@libp2p/interface'
import { multiaddrConnectionPair } from '@libp2p/utils'
import { yamux } from '@libp2p/yamux'
import { calmYamux } from '../../../src/discovery/calm-yamux.ts'

const WINDOW = 256 * 1024

/** Sends `bytes` in pieces over one stream. Returns what arrived, and how many messages went back. */
async function send (muxers: ReturnType<typeof yamux>, bytes: number, piece: number): Promise<{ arrived: number, back: number }> {
  const [outbound, inbound] = multiaddrConnectionPair()
  const client = muxers().createStreamMuxer(outbound)
  const server: StreamMuxer = muxers().createStreamMuxer(inbound)
  let back = 0
  outbound.addEventListener('message', () => { back++ })
  let arrived = 0
  const accepted = new Promise<Stream>(resolve => {
    server.addEventListener('stream', ({ detail }) => {
      detail.addEventListener('message', ({ data }) => { arrived += data.byteLength })
      resolve(detail)
    })
  })
  const stream = await client.createStream()
  try {
    for (let sent = 0; sent < bytes; sent += piece) {
      if (!stream.send(new Uint8Array(piece))) await new Promise(resolve => { stream.addEventListener('drain', resolve, { once: true }) })
      await new Promise(resolve => { setImmediate(resolve) })
    }
    await accepted
    for (let i = 0; i < 200 && arrived < bytes; i++) await new Promise(resolve => { setTimeout(resolve, 10) })
    return { arrived, back }
  } finally {
    stream.abort(new Error('over'))
    await Promise.all([client.close(), server.close()])
  }
}

describe('calm yamux', () => {
  const init = { enableKeepAlive: false, streamOptions: { initialStreamWindowSize: WINDOW, maxStreamWindowSize: WINDOW } }

  it('does not answer each short message', async () => {
    const plain = await send(yamux(init), 100 * 64, 64)
    const calm = await send(calmYamux(init), 100 * 64, 64)
    assert.deepEqual([plain.arrived, calm.arrived], [100 * 64, 100 * 64])
    assert(calm.back <= 2, `${calm.back} answers`)
    assert(plain.back >= 90, `${plain.back} answers of plain yamux: is this needed any longer?`)
  })

  it('lets more than a window through, and no more updates than two for each', async () => {
    const { arrived, back } = await send(calmYamux(init), 8 * WINDOW, 16 * 1024)
    assert.equal(arrived, 8 * WINDOW)
    assert(back >= 8 && back <= 20, `${back} answers`)
  })

  it('ends a stream that is opened while its connection goes, and not the process', async () => {
    const [outbound] = multiaddrConnectionPair()
    const client = calmYamux(init)().createStreamMuxer(outbound)
    outbound.send = () => { throw new Error('Cannot write to a stream that is closed') }
    const stream = await client.createStream()
    await new Promise(resolve => { setImmediate(resolve) }) // what nobody catches would fail this test
    assert.equal(stream.status, 'aborted')
  })
})
