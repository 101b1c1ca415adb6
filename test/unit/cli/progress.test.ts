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

  it('is nothing with --quiet', () => {
    show({ quiet: true, json: false })
    assert.equal(written, '')
  })
})
