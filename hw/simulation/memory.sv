// AXI4 memory ports of the test bench over memory.cpp, where their timing is described.
// A beat has at most 256 bytes.
package signmask_memory;
    import "DPI-C" function void signmask_memory_read(
        input int index, input int bytes, input bit arvalid, input longint araddr,
        input int arlen, input bit rready, output bit arready, output bit rvalid,
        output bit rlast, output bit [2047:0] rdata);
    import "DPI-C" function void signmask_memory_write(
        input int index, input int bytes, input bit awvalid, input longint awaddr,
        input int awlen, input bit wvalid, input bit [2047:0] wdata, input bit [255:0] wstrb,
        input bit wlast, input bit bready, output bit awready, output bit wready,
        output bit bvalid);
endpackage

module signmask_read_memory #(
    parameter int INDEX = 0,
    parameter int BYTES = 16
) (
    input  logic               clk,
    input  logic               rst,
    input  logic               arvalid,
    output logic               arready,
    input  logic [39:0]        araddr,
    input  logic [7:0]         arlen,
    output logic               rvalid,
    input  logic               rready,
    output logic [8*BYTES-1:0] rdata,
    output logic               rlast
);
    bit ready, valid, last;
    bit [2047:0] data;
    initial {arready, rvalid, rlast} = 3'b100;
    always @(posedge clk)
        if (!rst) begin
            signmask_memory::signmask_memory_read(
                INDEX, BYTES, arvalid, {24'b0, araddr}, {24'b0, arlen}, rready, ready, valid, last,
                data);
            arready <= ready;
            rvalid <= valid;
            rlast <= last;
            rdata <= data[8*BYTES-1:0];
        end
endmodule

module signmask_write_memory #(
    parameter int INDEX = 0,
    parameter int BYTES = 16
) (
    input  logic               clk,
    input  logic               rst,
    input  logic               awvalid,
    output logic               awready,
    input  logic [39:0]        awaddr,
    input  logic [7:0]         awlen,
    input  logic               wvalid,
    output logic               wready,
    input  logic [8*BYTES-1:0] wdata,
    input  logic [BYTES-1:0]   wstrb,
    input  logic               wlast,
    output logic               bvalid,
    input  logic               bready
);
    bit aw, w, b;
    bit [2047:0] data;
    bit [255:0] strobes;
    initial {awready, wready, bvalid} = 3'b110;
    always_comb begin
        data = '0;
        data[8*BYTES-1:0] = wdata;
        strobes = '0;
        strobes[BYTES-1:0] = wstrb;
    end
    always @(posedge clk)
        if (!rst) begin
            signmask_memory::signmask_memory_write(
                INDEX, BYTES, awvalid, {24'b0, awaddr}, {24'b0, awlen}, wvalid, data, strobes,
                wlast, bready, aw, w, b);
            awready <= aw;
            wready <= w;
            bvalid <= b;
        end
endmodule
