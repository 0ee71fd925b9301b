// A stock js-libp2p relay, which also dials: for each circuit address on its standard input it says "hello" to
// /test/echo/1 there and prints what comes back. Evaluated in the folder where the packages are.
import readline from 'node:readline'

Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new Promise((yes, no) => { resolve = yes; reject = no })
  return { promise, resolve, reject }
}

// After the line above: older Node.js has no withResolvers.
const { createLibp2p } = await import('libp2p')
const { tcp } = await import('@libp2p/tcp')
const { noise } = await import('@chainsafe/libp2p-noise')
const { yamux } = await import('@chainsafe/libp2p-yamux')
const { identify } = await import('@libp2p/identify')
const { circuitRelayServer, circuitRelayTransport } = await import('@libp2p/circuit-relay-v2')
const { multiaddr } = await import('@multiformats/multiaddr')

const node = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp(), circuitRelayTransport()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  connectionGater: { denyDialMultiaddr: () => false },
  services: { identify: identify(), relay: circuitRelayServer() }
})
console.log(node.getMultiaddrs()[0].toString())

for await (const address of readline.createInterface({ input: process.stdin })) {
  try {
    const stream = await node.dialProtocol(multiaddr(address), '/test/echo/1', { runOnLimitedConnection: true })
    stream.send(new TextEncoder().encode('hello'))
    for await (const piece of stream) {
      console.log(new TextDecoder().decode(piece.subarray()))
      break
    }
  } catch (error) {
    console.log(`${error.name}: ${error.message} ${(error.errors ?? []).join(' | ')}`)
  }
}
