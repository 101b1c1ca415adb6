import assert from 'node:assert/strict'
import { Progress } from '../../../src/cli/progress.ts'

describe('cli: progress', () => {
  const { stderr } = process
  const { isTTY } = stderr
  const write = stderr.write.bind(stderr)
  const now = performance.now.bind(performance)
  let written = ''
  let ahead = 0

  beforeEach(() => {
    written = ''
    ahead = 0
    stderr.isTTY = true
    stderr.write = (text: string | Uint8Array) => { written += text.toString(); return true }
    performance.now = () => now() + ahead
  })
  afterEach(() => {
    stderr.isTTY = isTTY
    stderr.write = write
    performance.now = now
  })

  function show (options: { quiet: boolean, json: boolean }): void {
    const progress = new Progress('loading', options)
    for (let bytesDone = 0; bytesDone <= 4; bytesDone++) {
      progress.update({ bytesDone, bytesTotal: 4 })
      ahead += 3_000
    }
    progress.stop()
  }

  it('is a bar on a terminal', () => {
    show({ quiet: false, json: false })
    assert.match(written, /loading \[ *\] /)
  })

  it('is lines of JSON with --json, on a terminal as elsewhere', () => {
    show({ quiet: false, json: true })
    const lines = written.split('\n').slice(0, -1).map(line => JSON.parse(line) as { progress: { bytesDone: number } })
    assert.deepEqual(lines.map(line => line.progress.bytesDone), [2, 4])
  })

  it('is lines elsewhere, one that says the same again once a minute with how long it has', () => {
    stderr.isTTY = false
    performance.now = () => ahead
    const progress = new Progress('replicating', { quiet: false, json: false })
    const wait = (seconds: number, shardsDone: number): void => {
      for (const end = ahead + seconds * 1_000; ahead < end; ahead += 1_000) progress.update({ bytesDone: 0, bytesTotal: 4, rate: 0, shards: 2, shardsDone })
    }
    wait(150, 0)
    wait(8, 1)
    progress.stop()
    const line = 'replicating: 0 % of 4 B, 0/2 shards'
    assert.deepEqual(written.split('\n'), [line, `${line} (for 1 min now)`, `${line} (for 2 min now)`, 'replicating: 0 % of 4 B, 1/2 shards', ''])
  })

  it('is nothing with --quiet', () => {
    show({ quiet: true, json: false })
    assert.equal(written, '')
  })
})
